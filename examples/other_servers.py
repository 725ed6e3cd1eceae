"""How do I use LM Studio, llama-server or vLLM?"""

import os

from sleicl_chains import GrimoireStore, load_task, solver, weak_model

# LM Studio listens at port 1234, llama-server at 8080, vLLM at 8000; the name is the one that the server lists.
address = os.environ.get("MODEL_SERVER", "http://127.0.0.1:8080/v1")
weak = weak_model("openai:qwen2.5-1.5b-instruct", base_url=address)  # a server of your own needs no key

task = load_task("examples/support/task.toml")
route = solver(weak, task, arm="simple", grimoire=GrimoireStore().get("support-d090011a"))
answer = route.invoke("Where is my parcel?")
print(answer.label, "|", answer.mode, "|", answer.note)
