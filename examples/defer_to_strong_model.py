"""How do I ask a strong model only where the small one is not sure?"""

from sleicl_chains import GrimoireStore, load_examples, load_task, solver, strong_model, weak_model

task = load_task("examples/support/task.toml")
rows, grimoire = load_examples("examples/support/train.jsonl", task), GrimoireStore().get("support-d090011a")
weak, strong = weak_model("embedded:smollm2"), strong_model("openai:gpt-5-mini")  # OPENAI_API_KEY
route = solver(
    weak, task, arm="simple+few-shot", grimoire=grimoire, train=rows, prior_texts=[row.text for row in rows[:12]],
    defer_below=0.36, to=strong,  # asked where the small model's answer is less probable
)  # fmt: skip

questions = ["Where is my parcel?", "It hums, then it stops. I have the invoice. What now?"]
for answer in route.batch(questions, {"max_concurrency": 1}):
    paid = answer.usage.get("strong_prompt_tokens", 0) + answer.usage.get("strong_reply_tokens", 0)
    print(answer.label, "by the strong model" if answer.deferred else "by the small model", f"({paid} tokens paid)")
