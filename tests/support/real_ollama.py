"""A second real Ollama, for tests that overload or kill one; its models are those of the first."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx

PLACE = Path(os.environ.get("SLEICL_OLLAMA") or Path.home() / ".cache" / "sleicl-ollama")


def chat_model(url: str) -> str:
    """Return the model of a real Ollama that conversations are tested on: the one that reads guides, if it is there."""
    names = [one["name"] for one in httpx.get(f"{url}/api/tags", trust_env=False).json()["models"]]
    return "qwen2.5-coder:1.5b" if "qwen2.5-coder:1.5b" in names else "smollm2:135m"


class OwnOllama:
    """Use as a context manager; only its own processes are ever ended.

    Args:
        settings: environment variables such as OLLAMA_MAX_QUEUE.
    """

    def __init__(self, **settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{self.host}"
        self._environment = {**os.environ, **settings, "OLLAMA_HOST": self.host, "OLLAMA_NO_CLOUD": "1"}
        self._environment["OLLAMA_MODELS"] = str(PLACE / "models")

    def __enter__(self) -> "OwnOllama":
        self.process = subprocess.Popen(
            [str(PLACE / "bin" / "ollama"), "serve"],
            env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(100):
            try:
                httpx.get(f"{self.url}/api/version", trust_env=False)
                return self
            except httpx.TransportError:
                time.sleep(0.1)
        raise TimeoutError(f"no Ollama at {self.url}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)

    def kill(self) -> None:
        """End the server as a crash would, after the process that runs its model."""
        self.kill_runner()
        self.process.kill()
        self.process.wait(timeout=20)

    def kill_runner(self) -> None:
        """End the process that runs the model, as a lack of memory would."""
        for child in self._children():
            os.kill(child, signal.SIGKILL)

    def busy(self, for_s: float) -> float:
        """Return how many seconds of processor time the processes that run its models take in the next seconds."""
        before = self._processor_s()
        time.sleep(for_s)
        return self._processor_s() - before

    def _processor_s(self) -> float:
        ticks = 0
        for child in self._children():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime and stime, see proc(5)
        return ticks / os.sysconf("SC_CLK_TCK")

    def _children(self) -> list[int]:
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(line) for line in found.stdout.split()]
