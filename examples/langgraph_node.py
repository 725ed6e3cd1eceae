"""How is a solver a node of a LangGraph graph?"""

from operator import itemgetter
from typing import Any, TypedDict

from langchain_core.runnables import RunnableParallel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from sleicl_chains import Answer, GrimoireStore, load_examples, load_task, solver, weak_model


class Ticket(TypedDict, total=False):
    """What the graph works on."""

    body: str
    answer: dict[str, Any]
    reply: str


task = load_task("examples/support/task.toml")
rows, grimoire = load_examples("examples/support/train.jsonl", task), GrimoireStore().get("support-d090011a")
weak, texts = weak_model("embedded:smollm2"), [row.text for row in rows[:12]]
route = solver(weak, task, arm="simple+few-shot", grimoire=grimoire, train=rows, prior_texts=texts)

graph = StateGraph(Ticket)
# A chain that picks its input out of the state is a node; plain data is what a checkpoint keeps best.
graph.add_node("route", RunnableParallel(answer=itemgetter("body") | route | Answer.to_dict))
graph.add_node("reply", lambda ticket: {"reply": f"Passed on to {ticket['answer']['label']}."})
graph.add_node("person", lambda ticket: {"reply": "Somebody will look at it."})
graph.add_edge(START, "route")
graph.add_conditional_edges("route", lambda ticket: "reply" if ticket["answer"]["probability"] > 0.3 else "person")
graph.add_edge("reply", END)
graph.add_edge("person", END)
app = graph.compile(checkpointer=InMemorySaver())

done = app.invoke({"body": "Where is my parcel?"}, {"configurable": {"thread_id": "1"}})
print(done["answer"]["label"], "|", done["reply"])
