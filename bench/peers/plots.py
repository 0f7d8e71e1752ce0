"""Bars of one figure of one scenario, as SVG that can be read on light and on dark."""

from __future__ import annotations

from pathlib import Path

from bench.peers.results import Results
from bench.peers.scenario import FIGURES

OURS, OTHERS, TEXT = "#2f81f7", "#9aa4af", "#808890"
ROW_INCHES, WIDTH_INCHES = 0.26, 7.5

# File, scenario, figure.
PLOTS = [
    ("c64", "c64", "cpu_us"),
    ("c256", "c256", "cpu_us"),
    ("new", "new", "cpu_us"),
    ("bodies", "bodies", "cpu_s_per_gib"),
    ("c1-p50", "c1", "p50"),
    ("idle", "idle5000", "kib_per_client"),
]


def bars(results: Results, scenario: str, figure: str, path: Path) -> None:
    """Needs matplotlib, of the extra `bench`. The least first; the service alone is no contestant."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    found = {
        name: value
        for name in results.contestants
        if name != "direct" and (value := results.middle(scenario, name, figure)) is not None
    }
    names = sorted(found, key=lambda name: found[name], reverse=True)
    titles = [results.contestants[name]["title"] for name in names]
    colours = [OURS if name.startswith("ours") else OTHERS for name in names]
    look = {"svg.fonttype": "none", "svg.hashsalt": "broker", "text.color": TEXT, "font.size": 8}
    look |= {"ytick.color": TEXT, "xtick.color": TEXT, "axes.labelcolor": TEXT, "font.family": "sans-serif"}
    with pyplot.rc_context(look):
        shape, axes = pyplot.subplots(figsize=(WIDTH_INCHES, ROW_INCHES * (len(names) + 3)))
        drawn = axes.barh(titles, [found[name] for name in names], color=colours)
        digits = FIGURES[figure].digits
        axes.bar_label(drawn, [f"{found[name]:,.{digits}f}" for name in names], padding=3, color=TEXT)
        axes.set_title(f"{results.scenarios[scenario]}: {FIGURES[figure].title}, less is better", color=TEXT)
        axes.spines[:].set_visible(False)
        axes.set_xticks([])
        axes.margins(x=0.12, y=0.01)
        shape.savefig(path, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
        pyplot.close(shape)
