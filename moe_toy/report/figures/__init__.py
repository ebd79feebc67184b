"""One function per figure: tables in, a plotly figure out."""
