"""Charts of a report as SVG text: no plotting library, no scripts needed, coloured by the page's style sheet."""
