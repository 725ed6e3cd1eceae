"""A strong model without a key: a person carries the prompts to a chat window and the replies back."""

import re
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from sleicl_chains.errors import ModelError, ReplyNeeded
from sleicl_chains.files import read_text

_WRITING = threading.Lock()  # a batch must not give one number twice


class PasteModel(BaseChatModel):
    """Writes each prompt to `NN.prompt.txt` and takes the reply from `NN.reply.txt` beside it.

    The same prompt keeps its number. Options of a call cannot be pasted and are ignored.
    """

    journalled: ClassVar[bool] = False  # the reply files are the record, and a person may correct them

    folder: Path

    @property
    def _llm_type(self) -> str:
        return "paste"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        prompt = self._prompt_file(_as_text(messages))
        reply = prompt.with_name(prompt.name.replace(".prompt.", ".reply."))
        text = read_text(reply, "the strong model's reply").strip() if reply.exists() else ""
        if not text:
            raise ReplyNeeded(
                f"{reply}: there is no reply yet; give the text of {prompt.name} beside it to the strong model, "
                f"save its reply in {reply.name} and run the same command again"
            )
        saved = datetime.fromtimestamp(reply.stat().st_mtime, UTC).isoformat(timespec="seconds")
        message = AIMessage(text, response_metadata={"asked_at": saved})
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _prompt_file(self, text: str) -> Path:
        """Return the file that holds this prompt, written now if there is none."""
        with _WRITING:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                prompts = self._prompts()
                for number in sorted(prompts):
                    if _same(read_text(prompts[number], "a prompt"), text):
                        return prompts[number]
                path = self.folder / f"{max(prompts, default=0) + 1:02}.prompt.txt"
                path.write_bytes(f"{text}\n".encode())
            except OSError as problem:
                raise ModelError(f"{self.folder}: prompts cannot be written there ({problem.strerror})") from None
        return path

    def _prompts(self) -> dict[int, Path]:
        found = {path: re.fullmatch(r"(\d+)\.prompt\.txt", path.name) for path in self.folder.iterdir()}
        return {int(match[1]): path for path, match in found.items() if match}


def _as_text(messages: Sequence[BaseMessage]) -> str:
    """Return the messages as a person would paste them; roles are named only where turns alternate."""
    turns = [message for message in messages if message.type != "system"]
    if len(turns) <= 1:
        return "\n\n".join(str(message.text) for message in messages)
    roles = {"human": "User", "ai": "Assistant", "system": "System"}
    return "\n\n".join(f"{roles.get(message.type, message.type)}:\n{message.text}" for message in messages)


def _same(one: str, other: str) -> bool:
    """Compare prompts; an editor may have changed line ends and the end of the file."""
    first, second = (text.replace("\r\n", "\n").strip() for text in (one, other))
    return first == second
