"""How the field compares sequences, a file a protocol or family of them; each is found by itself."""

import pkgutil
from importlib import import_module

from gaitdiff.evaluation.protocols.protocol import (
    PROTOCOLS,
    Protocol,
    get_protocol,
    protocols_with_submission,
    register_protocol,
)

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)

__all__ = ["PROTOCOLS", "Protocol", "get_protocol", "protocols_with_submission", "register_protocol"]
