"""How does a chat remember its talk in LangGraph, each message with the grimoire that fits it?"""

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from sleicl_chains import Conversation, GrimoireStore, weak_model

weak = weak_model("embedded:smollm2", n_ctx=2048, max_tokens=24)
store = GrimoireStore()


def reply(state: MessagesState) -> MessagesState:
    """Answer the last message; what was picked follows from the messages alone, so that they are all that is kept."""
    *before, last = state["messages"]
    # SmolLM2 is known not to follow a guide and would be shown none; leave this out for a model that can.
    talk = Conversation.of(weak, store, before, unreadable="")
    said = "".join(talk.stream(last.text))
    turn = talk.turns[-1]
    about = {"grimoire": turn.grimoire.id if turn.grimoire else None, "why": turn.why}
    return {"messages": [AIMessage(said, response_metadata=about)]}


graph = StateGraph(MessagesState)
graph.add_node("reply", reply)
graph.add_edge(START, "reply")
app = graph.compile(checkpointer=InMemorySaver())

for message in ("Can I trust this mail? “Your parcel waits, pay 2 euros here”", "thanks", "How long do I boil an egg?"):
    done = app.invoke({"messages": [HumanMessage(message)]}, {"configurable": {"thread_id": "1"}})
    print(message, "|", done["messages"][-1].response_metadata["why"])
print(len(done["messages"]), "messages are kept")
