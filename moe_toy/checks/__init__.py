"""The rules that constructors state in their annotations, held against a config; mistakes told in one line."""
