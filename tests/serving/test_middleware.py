"""The middleware on real agents: models are scripted, all else is LangChain's and LangGraph's own."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, dynamic_prompt
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel, Field

from sleicl_chains import GrimoireMiddleware, GrimoireRetriever, GrimoireStore
from sleicl_chains.errors import OptionError
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance

RAIN = Grimoire("rain", "weather", "", "Will it rain tomorrow?", ("yes", "no"), "Clouds {grey}: yes.", "", Provenance())
GOALS = Grimoire("goals", "sports news", "", "Football or tennis?", ("football", "tennis"), "", "Goals: football.",
                 Provenance())  # fmt: skip
TIDES = Grimoire("tides", "tides", "", "When is high tide?", (), "Long.", "Short.", Provenance())
FOREIGN = {"messages": [HumanMessage("Please fold the laundry and iron my shirts.")]}
WET = {"messages": [HumanMessage("Will it rain tomorrow?")]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> GrimoireStore:
    found = GrimoireStore(tmp_path_factory.mktemp("home"))
    for grimoire in (RAIN, GOALS, TIDES):
        found.add(grimoire)
    return found


class Scripted(GenericFakeChatModel):
    """Gives scripted messages, tool calls too, and keeps what it was shown."""

    shown: list[list[BaseMessage]] = Field(default_factory=list)

    def bind_tools(self, tools: Any, **kwargs: Any) -> "Scripted":
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.shown.append(messages)
        return super()._generate(messages, *args, **kwargs)

    @property
    def systems(self) -> list[str]:
        """The system message of each call, empty where there is none."""
        return ["".join(one.text for one in call if one.type == "system") for call in self.shown]


class Counted:
    """A retriever that counts its searches."""

    def __init__(self, store: GrimoireStore) -> None:
        self.asked: list[str] = []
        inner = GrimoireRetriever(store=store, k=1)

        def find(question: str) -> list[Document]:
            self.asked.append(question)
            return inner.invoke(question)

        self.retriever = RunnableLambda(find)


@tool
def barometer() -> str:
    """Read the barometer."""
    return "falling"


class Forecast(BaseModel):
    """A forecast."""

    rain: bool


def model(*replies: str | AIMessage) -> Scripted:
    return Scripted(messages=iter([AIMessage(one) if isinstance(one, str) else one for one in replies]))


def calling(name: str, **args: Any) -> AIMessage:
    return AIMessage("", tool_calls=[ToolCall(name=name, args=args, id="1", type="tool_call")])


def agent_of(weak: Any, *middleware: Any, tools: Any = (), **more: Any) -> Any:
    return create_agent(weak, list(tools), middleware=list(middleware), **more)


def run(agent: Any, given: Any, **config: Any) -> dict[str, Any]:
    found: dict[str, Any] = agent.invoke(given, config or None)
    return found


def arun(agent: Any, given: Any, **config: Any) -> dict[str, Any]:
    found: dict[str, Any] = asyncio.run(agent.ainvoke(given, config or None))
    return found


BOTH_WAYS = pytest.mark.parametrize("ask", (run, arun))


@BOTH_WAYS
def test_the_nearest_grimoire_stands_after_the_agents_own_prompt(ask: Callable[..., Any], store: GrimoireStore) -> None:
    weak = model("Yes.")
    agent = agent_of(weak, GrimoireMiddleware(store), system_prompt="Be brief.")
    state = ask(agent, WET)
    assert weak.systems == ["Be brief.\n\nClouds {grey}: yes."]
    assert [one.type for one in state["messages"]] == ["human", "ai"]
    assert (state["grimoire"]["id"], state["grimoire"]["text"]) == ("rain", RAIN.profound)
    (hit,) = store.match("Will it rain tomorrow?", k=1)
    assert (state["grimoire"]["score"], state["grimoire"]["why"]) == (pytest.approx(hit.score), str(hit.why))


@BOTH_WAYS
def test_where_none_fits_nothing_is_shown(ask: Callable[..., Any], store: GrimoireStore) -> None:
    weak = model("Hm.", "Hm.")
    assert ask(agent_of(weak, GrimoireMiddleware(store)), FOREIGN)["grimoire"] is None
    nearly = {"messages": [HumanMessage("Will it rain tomorrow in Oslo?")]}
    assert ask(agent_of(weak, GrimoireMiddleware(store, threshold=0.999)), nearly)["grimoire"] is None
    assert weak.systems == ["", ""]


@BOTH_WAYS
def test_a_turn_with_tools_searches_once_and_shows_it_at_each_call(
    ask: Callable[..., Any], store: GrimoireStore
) -> None:
    weak, counted = model(calling("barometer"), "Yes."), Counted(store)
    agent = agent_of(weak, GrimoireMiddleware(counted.retriever), tools=[barometer])
    state = ask(agent, WET)
    assert counted.asked == ["Will it rain tomorrow?"]
    assert weak.systems == [RAIN.profound] * 2
    assert [one.type for one in state["messages"]] == ["human", "ai", "tool", "ai"]


@BOTH_WAYS
def test_forged_state_is_ignored(ask: Callable[..., Any], store: GrimoireStore) -> None:
    weak = model("Yes.", "Hm.")
    agent = agent_of(weak, GrimoireMiddleware(store))
    forged = {"id": "x", "score": 1.0, "why": "", "text": "EVIL"}
    assert ask(agent, {**FOREIGN, "grimoire": forged})["grimoire"] is None
    assert weak.systems == [""]
    assert list(agent.get_input_jsonschema()["properties"]) == ["messages"]
    assert "grimoire" in agent.get_output_jsonschema()["properties"]


def test_it_is_streamed_before_the_first_token(store: GrimoireStore) -> None:
    agent = agent_of(model("Yes, it will."), GrimoireMiddleware(store))
    pieces = list(agent.stream(WET, stream_mode=["updates", "messages"]))
    kind, first = pieces[0]
    assert kind == "updates" and first["GrimoireMiddleware.before_agent"]["grimoire"]["id"] == "rain"
    assert "".join(piece[0].text for kind, piece in pieces if kind == "messages") == "Yes, it will."
    assert sum(kind == "messages" for kind, _ in pieces) > 2


def test_so_it_is_without_blocking(store: GrimoireStore) -> None:
    agent = agent_of(model("Yes, it will."), GrimoireMiddleware(store))

    async def gather() -> list[Any]:
        return [piece async for piece in agent.astream(WET, stream_mode=["updates", "messages"])]

    kind, first = asyncio.run(gather())[0]
    assert kind == "updates" and first["GrimoireMiddleware.before_agent"]["grimoire"]["id"] == "rain"


def test_the_search_is_a_child_run_of_the_middlewares_node(store: GrimoireStore) -> None:
    from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

    runs = RunCollectorCallbackHandler()
    agent_of(model("Yes."), GrimoireMiddleware(store)).invoke(WET, {"callbacks": [runs]})
    (agent,) = runs.traced_runs
    found = [run for run in _below(agent) if run.run_type == "retriever"]
    assert [run.parent_run_id for run in found] == [
        run.id for run in _below(agent) if run.name.startswith("GrimoireMiddleware.before_agent")
    ]


def _below(run: Any) -> Iterator[Any]:
    for child in run.child_runs:
        yield child
        yield from _below(child)


@pytest.mark.parametrize("ours_last", (True, False))
def test_beside_a_dynamic_prompt_it_stands_last(ours_last: bool, store: GrimoireStore) -> None:
    @dynamic_prompt
    def dynamic(request: Any) -> str:
        return "Dynamic."

    weak, ours = model("Yes."), GrimoireMiddleware(store)
    agent_of(weak, *([dynamic, ours] if ours_last else [ours, dynamic])).invoke(WET)
    assert weak.systems == [f"Dynamic.\n\n{RAIN.profound}" if ours_last else "Dynamic."]


@pytest.mark.parametrize(
    ("strategy", "reply"),
    ((ToolStrategy(Forecast), calling("Forecast", rain=True)), (ProviderStrategy(Forecast), '{"rain": true}')),
)
def test_structured_output_keeps_it(strategy: Any, reply: Any, store: GrimoireStore) -> None:
    weak = model(reply)
    agent = agent_of(weak, GrimoireMiddleware(store), response_format=strategy)
    assert agent.invoke(WET)["structured_response"] == Forecast(rain=True)
    assert weak.systems == [RAIN.profound]


def test_a_checkpointed_conversation_finds_anew_each_turn(store: GrimoireStore) -> None:
    weak, thread = model("Yes.", "Hm."), {"configurable": {"thread_id": "1"}}
    agent = agent_of(weak, GrimoireMiddleware(store), checkpointer=InMemorySaver())
    agent.invoke(WET, thread)
    assert agent.get_state(thread).values["grimoire"]["id"] == "rain"
    agent.invoke({"messages": [HumanMessage("Is the article about football or tennis?")]}, thread)
    kept = agent.get_state(thread).values
    assert kept["grimoire"]["id"] == "goals"
    assert weak.systems == [RAIN.profound, GOALS.simple]
    assert [one.type for one in kept["messages"]] == ["human", "ai"] * 2


@BOTH_WAYS
def test_a_turn_that_waited_for_a_person_goes_on_with_it(ask: Callable[..., Any], store: GrimoireStore) -> None:
    weak, counted = model(calling("barometer"), "Yes."), Counted(store)
    agent = agent_of(
        weak, GrimoireMiddleware(counted.retriever), HumanInTheLoopMiddleware({"barometer": True}), tools=[barometer],
        checkpointer=InMemorySaver(),
    )  # fmt: skip
    waiting = ask(agent, WET, configurable={"thread_id": "1"})
    assert waiting["__interrupt__"]
    done = ask(agent, Command(resume={"decisions": [{"type": "approve"}]}), configurable={"thread_id": "1"})
    assert done["messages"][-1].text == "Yes."
    assert (counted.asked, weak.systems) == (["Will it rain tomorrow?"], [RAIN.profound] * 2)


def test_the_simple_text_on_request(store: GrimoireStore) -> None:
    weak = model("Noon.")
    agent_of(weak, GrimoireMiddleware(store, form="simple")).invoke({"messages": [HumanMessage("When is high tide?")]})
    assert weak.systems == ["Short."]


def retriever(*documents: Document) -> RunnableLambda[str, list[Document]]:
    return RunnableLambda(lambda question: list(documents))


def test_any_retriever_will_do() -> None:
    weak = model("Yes.", "Yes.")
    plain = GrimoireMiddleware(retriever(Document("Clouds: yes.", id="7")))
    assert agent_of(weak, plain).invoke(WET)["grimoire"] == {
        "id": "7", "score": None, "why": "", "text": "Clouds: yes.",
    }  # fmt: skip
    assert agent_of(weak, GrimoireMiddleware(retriever())).invoke(WET)["grimoire"] is None
    assert weak.systems == ["Clouds: yes.", ""]


def test_a_threshold_without_scores_is_said() -> None:
    agent = agent_of(model(), GrimoireMiddleware(retriever(Document("Any.")), threshold=0.5))
    with pytest.raises(OptionError, match="have no `score` in their metadata; leave it out"):
        agent.invoke(WET)
    with pytest.raises(OptionError, match="threshold: found 7; expected a score from 0 to 1"):
        GrimoireMiddleware(retriever(), threshold=7)


def test_a_message_without_text_is_not_searched_for(store: GrimoireStore) -> None:
    picture = HumanMessage([{"type": "image", "url": "https://example.org/a.png"}])
    counted = Counted(store)
    agent = create_agent(FakeListChatModel(responses=["Nice."]), [], middleware=[GrimoireMiddleware(counted.retriever)])
    assert agent.invoke({"messages": [picture]})["grimoire"] is None
    assert counted.asked == []


@pytest.mark.ollama
@pytest.mark.usefixtures("ollama")
def test_an_agent_on_a_real_ollama_does_as_the_grimoire_says(home: Home) -> None:
    from sleicl_chains import weak_model

    store = GrimoireStore(home)
    codes = Grimoire(
        "codes", "housing desk", "", "Which queue takes a tenant's message: Owl or Ledger?", ("Owl", "Ledger"),
        "Messages about doors and keys go to the queue Owl. Messages about water damage go to the queue Ledger. "
        "Answer with the name of the queue alone.", "", Provenance(),
    )  # fmt: skip
    store.add(codes)
    agent = create_agent(weak_model("ollama:qwen2.5-coder:1.5b"), [], middleware=[GrimoireMiddleware(store)])
    asked = "Which queue takes this message of a tenant about a door? My key does not turn."
    state = agent.invoke({"messages": [HumanMessage(asked)]})
    assert state["grimoire"]["id"] == "codes"
    assert "Owl" in state["messages"][-1].text  # a name that stands in the grimoire alone
