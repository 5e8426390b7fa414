"""From a recording to a strip, as a named recipe says."""
