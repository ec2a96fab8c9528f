"""OpenGait's weights under their public name, see ``gaitdiff.exchange.opengait_weights``."""

from gaitdiff.exchange.opengait_weights import load_state_dict, state_dict

__all__ = ["load_state_dict", "state_dict"]
