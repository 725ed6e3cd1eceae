"""How does an agent work with the right grimoire?"""

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage

from sleicl_chains import GrimoireMiddleware, GrimoireStore, weak_model

store = GrimoireStore()
agent = create_agent(
    weak_model("embedded:smollm2"),
    system_prompt="You help at the desk of a shop.",
    middleware=[GrimoireMiddleware(store, threshold=0.3)],  # after any that replaces the system prompt
)

# The grimoire of a turn is known before the first token.
question = "Which team of the online shop should handle this customer message: billing, shipping, returns, account, "
question += "technical or sales? My invoice shows the wrong VAT number."
for mode, piece in agent.stream({"messages": [HumanMessage(question)]}, stream_mode=["updates", "messages"]):
    if mode == "updates" and "GrimoireMiddleware.before_agent" in piece:
        found = piece["GrimoireMiddleware.before_agent"]["grimoire"]
        print(f"grimoire {found['id']}, similarity {found['score']:.2f}" if found else "no grimoire fits")
    elif mode == "messages":
        print(piece[0].text, end="")
print()
