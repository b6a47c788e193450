"""One self-contained HTML page that shows what was routed how, from answer files."""
