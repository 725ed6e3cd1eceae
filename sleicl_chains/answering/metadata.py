"""What the runs of a chain carry: its arm's name, mode, prior and settings."""

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import RunnableConfig, merge_configs
from langchain_core.runnables.configurable import RunnableConfigurableFields

from sleicl_chains.answers import Answer


def metadata_of(chain: Runnable[str, Answer], given: RunnableConfig | None = None) -> Mapping[str, Any]:
    """Return what a chain's runs carry under a config; of a configured one, what it carries as it is configured."""
    config = getattr(chain, "config", None)
    own = (config or {}).get("metadata") or {}
    if isinstance(chain, RunnableConfigurableFields):
        return {**own, **metadata_of(chain.prepare(given)[0])}
    if isinstance(chain, RunnableBindingBase):
        return {**metadata_of(chain.bound, merge_configs(config, given)), **own}
    return own
