"""Agents with a grimoire: found once a user turn, and put before the model at each of the turn's calls."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, cast

from langchain.agents.middleware import AgentMiddleware, AgentState
from langchain.agents.middleware.types import ModelRequest, ModelResponse, OmitFromSchema
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import Runnable
from typing_extensions import TypedDict  # before Python 3.12 pydantic takes no other for a schema

from sleicl_chains.errors import OptionError
from sleicl_chains.grimoires.retriever import GrimoireRetriever
from sleicl_chains.grimoires.store import GrimoireStore

if TYPE_CHECKING:
    from langgraph.runtime import Runtime


class Found(TypedDict):
    """The grimoire of a turn, as it stands in the agent's state."""

    id: str
    score: float | None
    """Cosine similarity to the user's message, from 0 to 1; None where the retriever gives none."""
    why: str
    """Why it was taken; empty where the retriever does not say."""
    text: str


class GrimoireState(AgentState[Any]):
    """The state of an agent that works with grimoires."""

    # Out of the input: who calls the agent may not write its system message.
    grimoire: NotRequired[Annotated[Found | None, OmitFromSchema(input=True, output=False)]]


class GrimoireMiddleware(AgentMiddleware[GrimoireState, Any, Any]):
    """Show an agent's model the grimoire that fits the user's message, if one does.

    It is searched for once a user turn, before the first model call, and stands in the state and the stream
    (`stream_mode="updates"`) before the first token. Each model call of the turn has its text at the end of the system
    message, which is not kept among the messages. In the list of middleware it stands after one that replaces the
    system message, such as `@dynamic_prompt`.

    Args:
        library: a store, whose best match is taken, or a retriever of documents, whose first one is.
        threshold: a grimoire of a lower score is not shown; by default the one that `GrimoireStore.match` has, and with
            a retriever none.
        form: which text of a store's grimoire is shown; where it is empty, the other.

    Raises:
        OptionError: the threshold is not from 0 to 1, or (when asked) the retriever's documents have no `score` in
            their metadata to hold against it.
    """

    state_schema = GrimoireState

    def __init__(
        self,
        library: GrimoireStore | Runnable[str, list[Document]],
        *,
        threshold: float | None = None,
        form: Literal["simple", "profound"] = "profound",
    ) -> None:
        super().__init__()
        if threshold is not None and not 0 <= threshold <= 1:
            raise OptionError(f"threshold: found {threshold:g}; expected a score from 0 to 1")
        if isinstance(library, GrimoireStore):
            library = GrimoireRetriever(store=library, k=1, search_type="match", score_threshold=threshold, form=form)
        self.retriever = library
        self.threshold = threshold

    def before_agent(self, state: GrimoireState, runtime: "Runtime[Any]") -> dict[str, Any]:
        """Search for the turn's grimoire."""
        question = _question(state)
        return {"grimoire": self._best(self.retriever.invoke(question) if question else [])}

    async def abefore_agent(self, state: GrimoireState, runtime: "Runtime[Any]") -> dict[str, Any]:
        """Do the same without blocking."""
        question = _question(state)
        return {"grimoire": self._best(await self.retriever.ainvoke(question) if question else [])}

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Show the model the grimoire."""
        return handler(_with_grimoire(request))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Do the same without blocking."""
        return await handler(_with_grimoire(request))

    def _best(self, documents: Sequence[Document]) -> Found | None:
        if not documents:
            return None
        first = documents[0]
        score = first.metadata.get("score")
        if self.threshold is not None:
            if score is None:
                raise OptionError(
                    "threshold: the retriever's documents have no `score` in their metadata; leave it out"
                )
            if score < self.threshold:
                return None
        id = str(first.id or first.metadata.get("id", ""))
        why = str(first.metadata.get("why", ""))
        return Found(id=id, score=None if score is None else float(score), why=why, text=first.page_content)


def _question(state: GrimoireState) -> str:
    """Return the user's last message; empty where there is none, or no text in it."""
    return next((one.text for one in reversed(state["messages"]) if isinstance(one, HumanMessage)), "").strip()


def _with_grimoire(request: ModelRequest[Any]) -> ModelRequest[Any]:
    found = cast(GrimoireState, request.state).get("grimoire")
    if not found:
        return request
    # One plain text: some servers' templates write a message of several blocks with other line ends.
    before = [request.system_message.text] if request.system_message else []
    return request.override(system_message=SystemMessage("\n\n".join([*before, found["text"]])))
