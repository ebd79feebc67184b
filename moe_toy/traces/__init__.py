"""Routing on disk: the file format of the project and the formats of others."""
