"""The common part of the entry points: mistakes told in one line, quoting, the checks of constructors."""
