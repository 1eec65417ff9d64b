"""The report: compiled from results (pure), rendered as Markdown, HTML and CSV."""
