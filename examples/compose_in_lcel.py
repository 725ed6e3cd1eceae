"""How do I put a solver into a chain of my own?"""

from operator import itemgetter

from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import ConfigurableField, RunnablePassthrough

from sleicl_chains import Answer, GrimoireStore, load_examples, load_task, solver, weak_model

task = load_task("examples/support/task.toml")
rows = load_examples("examples/support/train.jsonl", task)
weak, grimoire = weak_model("embedded:smollm2"), GrimoireStore().get("support-d090011a")
texts = [row.text for row in rows[:12]]  # what the labels get without regard to the question is taken off
route = solver(weak, task, arm="simple+few-shot", grimoire=grimoire, train=rows, prior_texts=texts)


def queue(answer: Answer) -> str:
    """Return the label, or where a person should look."""
    return answer.label or "by hand"


# A ticket goes in, and comes out with its queue.
chain = RunnablePassthrough.assign(queue=itemgetter("body") | route | queue)
tickets = [{"id": 1, "body": "Where is my parcel?"}, {"id": 2, "body": "I was charged twice for one kettle."}]
for ticket in chain.batch(tickets):
    print(ticket["id"], ticket["queue"])

# What is shown can be chosen at each call.
free = route.configurable_fields(arm=ConfigurableField(id="arm"))
answer = free.invoke("Where is my parcel?", {"configurable": {"arm": "zero-shot"}})
print(answer.arm, answer.label)

# The guide before any other chat model and parser; here the same model writes freely.
written = grimoire.to_prompt("simple") | weak | StrOutputParser()
print(written.invoke({"question": "Where is my parcel?"}))

print(" -> ".join(node.name for node in route.get_graph().nodes.values()))
