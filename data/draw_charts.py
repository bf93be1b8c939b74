"""Draw the embedded data set, `data/charts`: images of 12 chart types whose labels are known.

It knows matplotlib, numpy and Pillow only. Whatever does not name a chart (size, colours, fonts,
grid, title, background) is drawn from the same distributions for every class; `data/README.md` is
the data card.
"""

import argparse
import inspect
import io
import json
import os
import platform
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
import PIL
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import AutoLocator, MaxNLocator
from numpy.random import Generator
from PIL import Image, ImageChops, ImageDraw, ImageFilter

COUNTS = {"train": 40, "val": 30, "test": 60, "shifted": 30}  # images per class
DEFAULT_DIR = Path(__file__).resolve().parent / "charts"
PALETTE_SIZE = 32  # colours of an image: what keeps the whole set under 6 MB
RECORD = "drawn.json"  # what drew the folder: seed, counts, versions

STYLE_SHEETS = [
    "default", "bmh", "classic", "fast", "fivethirtyeight", "ggplot", "Solarize_Light2",
    "tableau-colorblind10", "seaborn-v0_8-darkgrid", "seaborn-v0_8-ticks", "seaborn-v0_8-white",
    "seaborn-v0_8-whitegrid",
]  # fmt: skip
FONTS = ["DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral"]
PAPERS = [
    "#ffffff", "#faf7f0", "#f2f2f2", "#e8eef4", "#eef4e8", "#f6e9e6", "#ece6f3", "#fdf3d0",
    "#dfe6ea", "#e2dccb", "#cfdbe6", "#d5e4d3", "#ead3d0", "#d6d0e2", "#d0d0d0", "#f0d9b0",
]  # fmt: skip
COLORMAPS = [
    "viridis", "cividis", "plasma", "Blues", "Greens", "Oranges", "Purples", "RdPu", "YlGnBu",
    "YlOrBr", "coolwarm", "PiYG", "BrBG", "RdYlBu", "Spectral", "terrain", "pink",
]  # fmt: skip
CYCLES = {
    "tab10": ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2"],
    "okabe-ito": ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442"],
    "tol": ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb"],
    "pastel": ["#a6cee3", "#fdbf6f", "#b2df8a", "#fb9a99", "#cab2d6", "#ffe08a", "#b3cde3"],
    "earth": ["#7f5539", "#a68a64", "#656d4a", "#b6ad90", "#582f0e", "#936639", "#414833"],
    "bright": ["#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#bfef45"],
}
WORDS = """North South East West Alpha Beta Gamma Delta Spring Summer Autumn Winter Income Energy
Water Traffic Rainfall Output Demand Supply Region Sample Control Trial Station Harvest Budget
Exports Imports Visitors Weight Height Speed Depth Signal Price Yield Wheat Maize Rice Copper Zinc
Iron Lisbon Oslo Quito Nairobi Kyoto Adult Child Day Night Model Site Plot Group Team""".split()


@dataclass
class Look:
    """Everything about an image that does not depend on its class."""

    width: int
    height: int
    rc: dict
    colors: list
    colormap: LinearSegmentedColormap
    paper: str
    ink: str
    line_width: float
    panels: tuple[int, int]
    title: str
    labels: tuple[str, str]
    legend: bool
    tick_labels: bool
    scale: float
    hatched: bool = False


# --- choices --------------------------------------------------------------------------------------


def chance(rng: Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def pick(rng: Generator, options, weights=None):
    """Choose one of the options, which keeps its Python type (unlike rng.choice)."""
    options = list(options)
    p = None if weights is None else np.array(weights) / np.sum(weights)
    return options[int(rng.choice(len(options), p=p))]


def words(rng: Generator, count: int) -> list[str]:
    return [str(word) for word in rng.choice(WORDS, size=count, replace=False)]


def phrase(rng: Generator) -> str:
    first, second = words(rng, 2)
    return pick(
        rng,
        [
            first,
            f"{first} and {second.lower()}",
            f"{first} by {second.lower()}",
            f"{first}, {rng.integers(1950, 2025)}",
            f"Fig. {rng.integers(1, 40)}: {first.lower()}",
            f"{first} (%)",
        ],
    )


def visible(color, paper) -> tuple:
    """Darken a colour, or on dark paper lighten it, until it stands out from the paper."""
    color, paper = np.array(to_rgb(color)), np.array(to_rgb(paper))
    end = 0.0 if paper.mean() > 0.5 else 1.0
    while np.abs(color - paper).sum() < 0.8:
        color = 0.9 * color + 0.1 * end
    return tuple(color)


def visible_colormap(colormap, paper, count: int) -> LinearSegmentedColormap:
    """Sample a colormap at `count` places and darken what would vanish on the paper."""
    shades = [visible(colormap(x)[:3], paper) for x in np.linspace(0, 1, count)]
    return LinearSegmentedColormap.from_list("visible", shades)


def choose_colors(rng: Generator, paper: str) -> tuple[list, LinearSegmentedColormap]:
    """Choose the colours of series: a cycle, shades of one hue or a colormap; and a colormap."""
    source = pick(rng, ["cycle", "shades", "colormap"], [5, 2, 3])
    if source == "colormap":
        colormap = matplotlib.colormaps[pick(rng, COLORMAPS)]
        colormap = colormap.reversed() if chance(rng, 0.5) else colormap
        colors = [colormap(x) for x in rng.permutation(np.linspace(0.08, 0.92, 7))]
        return [visible(color, paper) for color in colors], colormap
    cycle = [to_rgb(color) for color in rng.permutation(CYCLES[pick(rng, CYCLES)])]
    hue = np.array(cycle[0])
    if source == "shades":
        cycle = [
            tuple(1 - (1 - hue) * shade) for shade in rng.permutation(np.linspace(0.45, 1.0, 7))
        ]
        cycle[0] = tuple(hue)
    cycle = [visible(color, paper) for color in cycle]
    ends = [to_rgb(paper), tuple(hue), tuple(hue * 0.45)]
    ends = ends if chance(rng, 0.5) else [cycle[1], "#f7f7f7", tuple(hue)]
    return cycle, LinearSegmentedColormap.from_list("chosen", ends)


def choose_look(rng: Generator) -> Look:
    short = int(rng.integers(144, 177))
    long = round(short * rng.uniform(1.0, 1.15))
    width, height = (short, long) if chance(rng, 0.5) else (long, short)
    paper = pick(rng, PAPERS, [50] + [1] * (len(PAPERS) - 1))
    panel = pick(rng, [paper, pick(rng, PAPERS), "#ffffff"], [8, 1, 2])
    colors, colormap = choose_colors(rng, panel)
    ink = pick(rng, ["#000000", "#333333", "#555555", "#1d3557", "#4a2c2a"])
    font_size = rng.uniform(6.0, 8.0)
    line_width = rng.uniform(1.2, 2.4)
    sheet = pick(rng, STYLE_SHEETS)
    rc = {} if sheet == "default" else dict(matplotlib.style.library[sheet])
    spines = pick(rng, ["all", "two", "none"], [4, 4, 2])
    grid = pick(rng, ["none", "both", "x", "y"], [10, 3, 1, 2])
    tick_length = pick(rng, [0, 2, 3])
    rc |= {
        "figure.dpi": 72,
        "font.family": pick(rng, FONTS, [4, 2, 1, 1]),
        "font.size": font_size,
        "axes.titlesize": font_size * rng.uniform(1.0, 1.3),
        "axes.titleweight": pick(rng, ["normal", "bold"]),
        "axes.titlelocation": pick(rng, ["center", "left"], [3, 1]),
        "axes.titlepad": 3,
        "axes.labelsize": font_size,
        "axes.labelpad": 1,
        "xtick.labelsize": font_size * 0.9,
        "ytick.labelsize": font_size * 0.9,
        "legend.fontsize": font_size * 0.85,
        "legend.handlelength": 1.2,
        "legend.borderpad": 0.25,
        "legend.labelspacing": 0.2,
        "legend.frameon": chance(rng, 0.7),
        "figure.facecolor": paper,
        "savefig.facecolor": "auto",
        "axes.facecolor": panel,
        "axes.edgecolor": ink,
        "axes.linewidth": rng.uniform(0.4, 1.2),
        "axes.spines.left": spines != "none",
        "axes.spines.bottom": spines != "none",
        "axes.spines.top": spines == "all",
        "axes.spines.right": spines == "all",
        "axes.grid": grid != "none",
        "axes.grid.axis": grid if grid in "xy" else "both",
        "axes.axisbelow": True,
        "grid.color": pick(rng, ["#b0b0b0", "#cccccc", "#ffffff", "#9fb3c8"]),
        "grid.linestyle": pick(rng, ["-", "--", ":"]),
        "grid.linewidth": rng.uniform(0.3, 0.9),
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.titlecolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "xtick.major.size": tick_length,
        "ytick.major.size": tick_length,
        "xtick.major.pad": 1.5,
        "ytick.major.pad": 1.5,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "lines.linewidth": line_width,
        "lines.markersize": rng.uniform(2.5, 5),
        "patch.linewidth": rng.uniform(0.4, 1.2),
        "hatch.linewidth": 0.6,
    }  # fmt: skip
    return Look(
        width=width,
        height=height,
        rc=rc,
        colors=colors,
        colormap=colormap,
        paper=panel,
        ink=ink,
        line_width=line_width,
        panels=pick(rng, [(1, 1), (1, 2), (2, 1)], [78, 1, 1]),
        title=phrase(rng) if chance(rng, 0.55) else "",
        labels=(pick(rng, ["", *words(rng, 1)]), pick(rng, ["", *words(rng, 1)])),
        legend=chance(rng, 0.3),
        tick_labels=chance(rng, 0.85),
        scale=float(10.0 ** rng.integers(-1, 4)),
    )


# --- data -----------------------------------------------------------------------------------------


def unit(values: np.ndarray) -> np.ndarray:
    """Scale to [0, 1]."""
    span = np.ptp(values)
    return (values - values.min()) / (span if span else 1.0)


def curve(rng: Generator, count: int) -> np.ndarray:
    """Draw a curve of `count` values in [0, 1]: waves, walks, growth, bumps, noise."""
    t = np.linspace(0, 1, count)
    kind = pick(rng, ["wave", "walk", "growth", "bump", "noise", "trend", "damped"])
    if kind == "wave":
        y = np.sin(2 * np.pi * (rng.uniform(0.5, 3) * t + rng.random()))
    elif kind == "walk":
        y = np.cumsum(rng.normal(size=count))
    elif kind == "growth":
        y = np.exp(rng.uniform(-4, 4) * t)
    elif kind == "bump":
        y = np.exp(-(((t - rng.random()) / rng.uniform(0.08, 0.4)) ** 2))
    elif kind == "noise":
        y = rng.normal(size=count)
    elif kind == "trend":
        y = rng.uniform(-2, 2) * t + rng.normal(scale=0.3, size=count)
    else:
        y = np.exp(-3 * t) * np.cos(2 * np.pi * rng.uniform(1, 4) * t)
    return unit(y + rng.normal(scale=rng.choice([0, 0, 0.05, 0.15]), size=count))


def amounts(rng: Generator, count: int) -> np.ndarray:
    """Draw `count` heights in [0.05, 1]: irregular, sorted, bell-shaped or following a curve."""
    kind = pick(rng, ["uniform", "sorted", "bell", "curve", "counts"])
    if kind == "bell":
        y = np.exp(
            -((np.linspace(-1, 1, count) - rng.uniform(-0.4, 0.4)) ** 2) / rng.uniform(0.1, 0.5)
        )
        y = y * rng.uniform(0.85, 1.15, size=count)
    elif kind == "curve":
        y = curve(rng, count)
    elif kind == "counts":
        y = rng.poisson(rng.uniform(2, 12), size=count).astype(float)
    else:
        y = rng.uniform(size=count) ** rng.uniform(0.5, 2)
        y = np.sort(y)[:: pick(rng, [-1, 1])] if kind == "sorted" else y
    return 0.05 + 0.95 * y / max(y.max(), 1e-9)


def measurements(rng: Generator, count: int) -> np.ndarray:
    """Draw measurements of unit order: normal, skewed, two-peaked or heavy-tailed."""
    kind = pick(rng, ["normal", "skewed", "peaks", "heavy"], [3, 3, 2, 1])
    if kind == "normal":
        return rng.normal(size=count)
    if kind == "skewed":
        return pick(rng, [-1, 1]) * rng.gamma(rng.uniform(1, 4), size=count) / 2
    if kind == "peaks":
        return rng.normal(size=count, scale=0.5) + rng.uniform(1.2, 2.5) * rng.integers(
            0, 2, size=count
        )
    return np.clip(rng.standard_t(3, size=count), -6, 6)


def field(rng: Generator, rows: int, columns: int) -> np.ndarray:
    """Draw a smooth surface on a grid, in [0, 1]: a few hills, or waves."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    surface = rng.uniform(-0.3, 0.3) * x + rng.uniform(-0.3, 0.3) * y
    if chance(rng, 0.3):
        a, b, c = rng.uniform(1, 4, size=3)
        return unit(surface + np.sin(a * x + c) * np.cos(b * y + a))
    for _ in range(rng.integers(2, 6)):
        cx, cy = rng.uniform(-0.8, 0.8, size=2)
        wx, wy = rng.uniform(0.2, 0.7, size=2)
        surface += (
            rng.choice([-1, 1])
            * rng.uniform(0.5, 1)
            * np.exp(-(((x - cx) / wx) ** 2) - ((y - cy) / wy) ** 2)
        )
    return unit(surface)


def abscissa(rng: Generator, count: int) -> np.ndarray:
    """Draw where a series of values stands: counted, in years, or on an interval."""
    start, step = pick(
        rng, [(0, 1), (1, 1), (int(rng.integers(1960, 2000)), 1), (0, 0.1), (-5, 0.5)]
    )
    return start + step * np.arange(count)


# --- the 12 charts: each draws itself on the axes it is given -------------------------------------


def draw_line(ax: Axes, rng: Generator, look: Look) -> None:
    count = int(pick(rng, [rng.integers(5, 12), rng.integers(12, 40), 100]))
    series = int(pick(rng, [1, 2, 3, 4, 5], [4, 3, 2, 1, 1]))
    x = abscissa(rng, count)
    marked = count < 40 and chance(rng, 0.55)
    for color, name in zip(look.colors[:series], words(rng, series), strict=False):
        y = look.scale * (curve(rng, count) * rng.uniform(0.3, 1) + rng.uniform(0, 0.6))
        marker = pick(rng, "os^Dvx*") if marked else ""
        dashes = pick(rng, ["-", "--", ":", "-."], [6, 2, 1, 1])
        line_width = look.line_width * (0.6 if marked else 1)
        ax.plot(x, y, dashes, marker=marker, color=color, linewidth=line_width, label=name)
        if chance(rng, 0.12):  # a band of uncertainty, which is no area chart
            width = look.scale * rng.uniform(0.04, 0.12)
            ax.fill_between(x, y - width, y + width, color=color, alpha=0.25, linewidth=0)
        elif chance(rng, 0.12):
            ax.fill_between(x, y, y.min(), color=color, alpha=0.12, linewidth=0)
    ax.margins(x=rng.uniform(0, 0.08), y=rng.uniform(0.05, 0.3))


def draw_step(ax: Axes, rng: Generator, look: Look) -> None:
    series = int(pick(rng, [1, 2, 3], [5, 3, 1]))
    cumulative = chance(rng, 0.2)
    for color, name in zip(look.colors[:series], words(rng, series), strict=False):
        count = int(rng.integers(6, 18))
        x = abscissa(rng, count) if series == 1 else np.linspace(0, 10, count)
        y = np.sort(curve(rng, count)) if cumulative else curve(rng, count)
        y = look.scale * (y * rng.uniform(0.4, 1) + rng.uniform(0, 0.5))
        where = pick(rng, ["pre", "mid", "post"])
        marker = pick(rng, ["", "o", "s"], [6, 1, 1])
        ax.step(x, y, where=where, color=color, marker=marker, label=name)
        if chance(rng, 0.2):
            floor = y.min() if chance(rng, 0.5) else 0
            ax.fill_between(
                x, y, floor, step=where, color=color, alpha=rng.uniform(0.1, 0.3), linewidth=0
            )
    ax.margins(x=rng.uniform(0, 0.08), y=rng.uniform(0.05, 0.3))


def draw_area(ax: Axes, rng: Generator, look: Look) -> None:
    count = int(pick(rng, [rng.integers(5, 12), rng.integers(12, 40), 100]))
    x = abscissa(rng, count)
    kind = pick(rng, ["single", "stacked", "overlaid"], [4, 4, 2])
    series = 1 if kind == "single" else int(rng.integers(2, 5))
    names = words(rng, series)
    curves = [0.15 + curve(rng, count) * rng.uniform(0.3, 1) for _ in range(series)]
    curves = [look.scale * y for y in curves]
    alpha = rng.uniform(0.5, 1.0) if kind == "stacked" else rng.uniform(0.35, 0.8)
    if kind == "stacked":
        baseline = pick(rng, ["zero", "sym", "wiggle"], [6, 1, 1])
        ax.stackplot(x, *curves, colors=look.colors, labels=names, alpha=alpha, baseline=baseline)
    else:
        outlined = chance(rng, 0.6)
        for y, color, name in zip(curves, look.colors, names, strict=False):
            ax.fill_between(x, y, color=color, alpha=alpha, linewidth=0, label=name)
            if outlined:
                ax.plot(x, y, color=color, marker=pick(rng, ["", "o"]) if count < 15 else "")
    ax.margins(x=rng.uniform(0, 0.08))
    if kind != "stacked":
        ax.set_ylim(0, look.scale * rng.uniform(1.2, 1.7))


def draw_bars(ax: Axes, rng: Generator, look: Look, horizontal: bool) -> None:
    """Draw single, grouped or stacked bars with gaps between them."""
    kind = pick(rng, ["single", "grouped", "stacked"], [6, 2, 1])
    series = 1 if kind == "single" else int(rng.integers(2, 4))
    count = int(pick(rng, [rng.integers(3, 8), rng.integers(8, 15)], [4, 1])) if series == 1 else 4
    place = np.arange(count)
    width = rng.uniform(0.45, 0.75)
    edge = pick(rng, ["none", look.ink, "#ffffff"])
    signed = kind == "single" and chance(rng, 0.1)
    draw = ax.barh if horizontal else ax.bar
    low = np.zeros(count)
    for i, (color, name) in enumerate(zip(look.colors[:series], words(rng, series), strict=False)):
        y = look.scale * amounts(rng, count)
        y = y * rng.choice([-1, 1], size=count) if signed else y
        color = (
            pick(rng, [color, look.colors[:count]], [3, 1]) if 1 == series and count < 8 else color
        )
        options = {"color": color, "edgecolor": edge, "label": name, "alpha": rng.uniform(0.85, 1)}
        if kind == "single" and chance(rng, 0.1):
            error = look.scale * rng.uniform(0.03, 0.12, size=count)
            options |= {"xerr" if horizontal else "yerr": error, "ecolor": look.ink, "capsize": 1.5}
        if kind == "grouped":
            draw(place + (i - (series - 1) / 2) * width / series, y, width / series, **options)
        else:
            draw(place, y, width, **{"left" if horizontal else "bottom": low}, **options)
            low = low + y
    name_places(ax, rng, place, horizontal)
    if chance(rng, 0.5):
        ax.margins(**{"x" if horizontal else "y": rng.uniform(0.05, 0.35)})


def draw_bar(ax: Axes, rng: Generator, look: Look) -> None:
    draw_bars(ax, rng, look, horizontal=False)


def draw_barh(ax: Axes, rng: Generator, look: Look) -> None:
    draw_bars(ax, rng, look, horizontal=True)
    if chance(rng, 0.3):
        ax.invert_yaxis()


def draw_histogram(ax: Axes, rng: Generator, look: Look) -> None:
    bins = int(pick(rng, [rng.integers(10, 16), rng.integers(16, 36)]))
    series = int(pick(rng, [1, 2], [4, 1]))
    count = int(rng.integers(80, 1500))
    values = [look.scale * (measurements(rng, count) + rng.uniform(0, 2)) for _ in range(series)]
    kind = pick(rng, ["bar", "gapped", "stepfilled", "stacked"], [7, 1, 1, 1])
    options = {
        "histtype": "stepfilled" if kind == "stepfilled" else "bar",
        "rwidth": rng.uniform(0.86, 0.94) if kind == "gapped" and series == 1 else None,
        "edgecolor": look.ink if bins < 25 and chance(rng, 0.5) else pick(rng, ["none", "#ffffff"]),
        "density": chance(rng, 0.3),
    }
    names = words(rng, series)
    if kind == "stacked":
        ax.hist(values, bins, color=look.colors[:series], label=names, stacked=True, **options)
    else:
        edges = np.histogram_bin_edges(np.concatenate(values), bins)
        for y, color, name in zip(values, look.colors, names, strict=False):
            alpha = rng.uniform(0.5, 0.75) if series > 1 else rng.uniform(0.75, 1)
            ax.hist(y, edges, color=color, alpha=alpha, label=name, **options)
    if chance(rng, 0.3):
        ax.margins(x=rng.uniform(0.02, 0.2), y=rng.uniform(0.05, 0.3))


def draw_scatter(ax: Axes, rng: Generator, look: Look) -> None:
    groups = int(pick(rng, [1, 2, 3], [4, 2, 2]))
    names = words(rng, groups)
    size = rng.uniform(6, 30)
    style = {"alpha": rng.uniform(0.65, 1), "linewidth": pick(rng, [0, 0.5])}
    for color, name in zip(look.colors[:groups], names, strict=False):
        count = int(pick(rng, [rng.integers(15, 40), rng.integers(40, 150)]))
        kind = pick(rng, ["cloud", "trend", "curve"], [5, 3, 1])
        x = rng.normal(size=count) if kind == "cloud" else np.sort(rng.uniform(-2, 2, size=count))
        y = rng.normal(size=count)
        if kind == "trend":
            y = rng.uniform(-1.5, 1.5) * x + rng.uniform(0.1, 0.8) * y
        elif kind == "curve":
            y = 3 * curve(rng, count) + rng.uniform(0, 0.3) * y
        x, y = look.scale * (x + rng.uniform(-1, 1)), y + rng.uniform(-1, 1)
        marker = pick(rng, "os^D+x*", [5, 1, 1, 1, 1, 1, 1])
        if marker in "+x":
            ax.scatter(x, y, size, color=color, marker=marker, label=name, linewidth=0.8)
        elif groups == 1 and chance(rng, 0.35):  # a third and a fourth quantity
            seen = visible_colormap(look.colormap, look.paper, 16)
            sizes = size * rng.uniform(0.2, 4, size=count)
            points = ax.scatter(x, y, sizes, c=y + x / look.scale, cmap=seen, **style)
            if look.legend:
                color_scale(ax, points)
        else:
            hollow = chance(rng, 0.2)
            face = {"facecolor": "none", "edgecolor": color} if hollow else {"color": color}
            ax.scatter(x, y, size, marker=marker, label=name, **(style | face | {"linewidth": 0.7}))
        if chance(rng, 0.1):
            slope, offset = np.polyfit(x, y, 1)
            ends = np.array([x.min(), x.max()])
            ax.plot(
                ends, slope * ends + offset, pick(rng, ["-", "--"]), color=look.ink, linewidth=0.8
            )


def draw_groups(ax: Axes, rng: Generator, look: Look) -> tuple[list[np.ndarray], np.ndarray, bool]:
    """Name some groups on an axis; return their measurements, their places, and if horizontal."""
    count = int(rng.integers(3, 8))
    spread = rng.uniform(0.5, 1.5, size=count)
    values = [
        look.scale * (rng.uniform(-1.5, 1.5) + s * measurements(rng, int(rng.integers(25, 90))))
        for s in spread
    ]
    horizontal = chance(rng, 0.2)
    place = np.arange(count)
    name_places(ax, rng, place, horizontal)
    if chance(rng, 0.2):
        for i, y in enumerate(values):
            x = i + rng.uniform(-0.15, 0.15, size=len(y))
            ax.scatter(
                *((y, x) if horizontal else (x, y)), 1.5, color=look.ink, alpha=0.5, linewidth=0
            )
    return values, place, horizontal


def orientation(horizontal: bool) -> dict:
    """Return the keyword of boxplot: `orientation` since matplotlib 3.10, `vert` before."""
    if "orientation" in inspect.signature(Axes.boxplot).parameters:
        return {"orientation": "horizontal" if horizontal else "vertical"}
    return {"vert": not horizontal}


def draw_box(ax: Axes, rng: Generator, look: Look) -> None:
    values, place, horizontal = draw_groups(ax, rng, look)
    line = {"linewidth": rng.uniform(0.7, 1.5), "color": look.ink}
    parts = ax.boxplot(
        values,
        positions=place,
        widths=rng.uniform(0.3, 0.75),
        notch=chance(rng, 0.2),
        patch_artist=True,
        showmeans=chance(rng, 0.2),
        showfliers=chance(rng, 0.75),
        showcaps=chance(rng, 0.85),
        boxprops=dict(line),
        whiskerprops=line | {"linestyle": pick(rng, ["-", "--"], [3, 1])},
        capprops=line,
        medianprops=line | {"color": pick(rng, [look.ink, "#d62728", "#ffffff"], [3, 1, 1])},
        flierprops={"marker": pick(rng, "o+.d"), "markersize": 2.5, "markeredgecolor": look.ink},
        manage_ticks=False,
        **orientation(horizontal),
    )
    filling = pick(rng, ["each", "same", "none"], [4, 3, 2])
    for i, body in enumerate(parts["boxes"]):
        color = look.colors[i % 7] if filling == "each" else look.colors[0]
        body.set_facecolor(look.paper if filling == "none" else color)


def draw_violin(ax: Axes, rng: Generator, look: Look) -> None:
    values, place, horizontal = draw_groups(ax, rng, look)
    inner = pick(rng, ["lines", "box", "nothing"], [4, 4, 1])
    width = rng.uniform(0.6, 0.95)
    parts = ax.violinplot(
        values,
        positions=place,
        widths=width,
        showextrema=inner == "lines",
        showmedians=inner == "lines" and chance(rng, 0.6),
        **orientation(horizontal),
    )
    filling = pick(rng, ["each", "same", "none"], [4, 3, 1])
    one_sided = chance(rng, 0.06)
    for i, body in enumerate(parts.pop("bodies")):
        color = look.colors[i % 7] if filling == "each" else look.colors[0]
        body.set(facecolor=look.paper if filling == "none" else color, alpha=rng.uniform(0.6, 1))
        body.set_edgecolor(look.ink if filling == "none" or chance(rng, 0.5) else color)
        body.set_linewidth(0.7)
        if one_sided:
            side = body.get_paths()[0].vertices[:, 1 if horizontal else 0]
            np.clip(side, i, None, out=side)
    for line in parts.values():
        line.set(color=look.ink, linewidth=0.8)
    if inner == "box":
        line = {"linewidth": 0.7, "color": look.ink}
        ax.boxplot(
            values,
            positions=place,
            widths=width * 0.16,
            patch_artist=True,
            showfliers=False,
            showcaps=False,
            boxprops=line | {"facecolor": pick(rng, [look.ink, "#ffffff"])},
            whiskerprops=line,
            medianprops=line | {"color": pick(rng, ["#ffffff", look.ink])},
            manage_ticks=False,
            **orientation(horizontal),
        )


def draw_heatmap(ax: Axes, rng: Generator, look: Look) -> None:
    kind = pick(rng, ["table", "surface", "pairs", "density"], [4, 3, 1, 1])
    rows, columns = rng.integers(3, 10, size=2)
    if kind == "table":
        values = rng.uniform(size=(rows, columns)) ** rng.uniform(0.7, 3)
    elif kind == "surface":
        rows, columns = rng.integers(10, 28, size=2)
        values = field(rng, rows, columns) + rng.normal(scale=0.08, size=(rows, columns))
    elif kind == "pairs":
        rows = columns = int(rng.integers(5, 10))
        values = np.corrcoef(rng.normal(size=(rows, 6)) + rng.normal(size=6))
        values = np.ma.masked_where(np.triu(np.ones_like(values), 1) > 0, values)
    else:
        rows, columns = rng.integers(9, 20, size=2)
        points = rng.normal(size=(2, 300)) + rng.uniform(-1, 1) * rng.normal(size=300)
        values = np.histogram2d(*points, bins=(rows, columns))[0]
        values = np.ma.masked_equal(values, 0)
    cell = 90 / max(rows, columns) / max(look.panels)  # points, about
    gap = cell * rng.uniform(0.05, 0.2)
    lines = {"edgecolor": look.paper, "linewidth": gap} if chance(rng, 0.4) else {}
    mesh = ax.pcolormesh(values, cmap=look.colormap, **lines)
    if rows * columns <= 30 and chance(rng, 0.6):
        for (i, j), value in np.ndenumerate(np.ma.filled(values, 0)):
            red, green, blue, _ = mesh.to_rgba(value)
            ink = "#000000" if red + green + blue > 1.4 else "#ffffff"
            ax.text(
                j + 0.5, i + 0.5, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=5
            )
    if kind in ("table", "pairs"):
        name_places(ax, rng, np.arange(columns) + 0.5, horizontal=False)
        if rows < 8:
            name_places(ax, rng, np.arange(rows) + 0.5, horizontal=True)
    pad = rng.choice([0, 0, 0.03, 0.1])
    ax.set_xlim(-pad * columns, columns * (1 + pad))
    ax.set_ylim(-pad * rows, rows * (1 + pad))
    ax.grid(False)
    if look.panels == (1, 1) and chance(rng, 0.3):
        ax.set_aspect("equal")
    if look.legend:
        color_scale(ax, mesh)


def draw_contour(ax: Axes, rng: Generator, look: Look) -> None:
    values = field(rng, 40, 40)
    x = np.linspace(*sorted(rng.uniform(-5, 5, size=2) + [0, 3]), 40) * look.scale
    y = np.linspace(0, rng.uniform(1, 20), 40)
    levels = int(rng.integers(4, 12))
    kind = pick(rng, ["lines", "filled", "both"], [5, 3, 3])
    shades = [visible(look.colormap(x)[:3], look.paper) for x in np.linspace(0, 1, levels)]
    color = {"colors": shades if chance(rng, 0.5) else [pick(rng, look.colors)]}
    if kind != "lines":
        # the lowest part left open, like a map with sea
        floor = rng.choice([0, 0, 0.25, 0.45])
        filled = ax.contourf(x, y, values, np.linspace(floor, 1, levels + 1), cmap=look.colormap)
        color = {"colors": [look.ink]}
        if look.legend:
            color_scale(ax, filled)
    if kind != "filled":
        width = rng.uniform(0.5, 1.3)
        lines = ax.contour(x, y, values, levels, linewidths=width, **color)
        if chance(rng, 0.35):
            ax.clabel(lines, fontsize=5, inline_spacing=1)
    if chance(rng, 0.2):
        ax.scatter(rng.choice(x, 15), rng.choice(y, 15), 4, color=look.ink, linewidth=0)
    ax.margins(rng.choice([0, 0, 0.05, 0.1]))


def draw_pie(ax: Axes, rng: Generator, look: Look) -> None:
    count = int(rng.integers(2, 8))
    shares = rng.uniform(0.15, 1, size=count)
    width = pick(rng, [1.0, rng.uniform(0.3, 0.6)], [2, 1])
    names = words(rng, count)
    labelled = look.panels == (1, 1) and chance(rng, 0.4)
    ax.pie(
        shares,
        labels=names if labelled else None,
        colors=look.colors[:count],
        startangle=rng.uniform(0, 360),
        counterclock=chance(rng, 0.5),
        explode=rng.choice([0, 0.12], size=count, p=[0.8, 0.2]) if chance(rng, 0.3) else None,
        autopct=pick(rng, ["%d%%", None]) if width == 1 else None,
        pctdistance=0.65,
        labeldistance=1.08,
        radius=rng.uniform(0.75, 1.1),
        wedgeprops={
            "width": width,
            "edgecolor": pick(rng, [look.paper, look.ink, "none"]),
            "linewidth": rng.uniform(0.4, 1.5),
        },
        textprops={"fontsize": 5.5},
    )
    if not labelled:
        for wedge, name in zip(ax.patches, names, strict=False):
            wedge.set_label(name)


CHARTS: dict[str, Callable[[Axes, Generator, Look], None]] = {
    "area": draw_area,
    "bar": draw_bar,
    "barh": draw_barh,
    "box": draw_box,
    "contour": draw_contour,
    "heatmap": draw_heatmap,
    "histogram": draw_histogram,
    "line": draw_line,
    "pie": draw_pie,
    "scatter": draw_scatter,
    "step": draw_step,
    "violin": draw_violin,
}
CLASS_NAMES = list(CHARTS)


# --- what surrounds a chart -----------------------------------------------------------------------


def name_places(ax: Axes, rng: Generator, place: np.ndarray, horizontal: bool) -> None:
    """Label the places of categories with words, letters or years."""
    letters = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(place)])
    years = [str(year) for year in rng.integers(1980, 2005) + np.arange(len(place))]
    names = pick(rng, [words(rng, len(place)), letters, years])
    axis = ax.yaxis if horizontal else ax.xaxis
    if len(place) > 8:
        place, names = place[::3], names[::3]
    turned = not horizontal and max(map(len, names)) * len(place) > 16
    if turned and chance(rng, 0.5):
        names, turned = letters[: len(place)], False
    axis.set_ticks(place, names, rotation=pick(rng, [45, 90]) if turned else 0)


def color_scale(ax: Axes, colored) -> None:
    bar = ax.figure.colorbar(colored, ax=ax, fraction=0.08, pad=0.03)
    bar.ax.tick_params(labelsize=5, length=0)
    bar.outline.set_linewidth(0.4)


def add_remarks(ax: Axes, rng: Generator, look: Look) -> None:
    """Add what may stand in any chart: a reference line, a shaded range, a note."""
    if ax.get_frame_on() and chance(rng, 0.06):  # a pie has no frame
        rule = pick(rng, [ax.axhline, ax.axvline])
        ends = ax.get_ylim() if rule == ax.axhline else ax.get_xlim()
        rule(
            rng.uniform(*sorted(ends)),
            color=look.ink,
            linestyle=pick(rng, ["--", ":"]),
            linewidth=0.8,
        )
    if ax.get_frame_on() and chance(rng, 0.05):
        low, high = np.sort(rng.uniform(*sorted(ax.get_xlim()), size=2))
        ax.axvspan(low, high, color=pick(rng, look.colors), alpha=0.15, linewidth=0)
    if chance(rng, 0.06):
        box = {
            "boxstyle": "round,pad=0.2",
            "facecolor": look.paper,
            "edgecolor": look.ink,
            "linewidth": 0.5,
        }
        x, y = rng.uniform(0.15, 0.85, size=2)
        ax.text(x, y, words(rng, 1)[0], transform=ax.transAxes, ha="center", fontsize=5.5, bbox=box)


def add_legend(ax: Axes, rng: Generator, look: Look) -> None:
    handles, names = ax.get_legend_handles_labels()
    if not handles and ax.patches:
        handles, names = [Patch(color=color) for color in look.colors[:2]], words(rng, 2)
    if not handles:
        return
    places = ["upper left", "upper right", "lower left", "lower right", "above"]
    place = pick(rng, places[:4] if look.title else places)  # a title stands above already
    if place == "above":
        ax.legend(handles, names, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    else:
        ax.legend(handles, names, loc=place)


def thin_ticks(ax: Axes) -> None:
    """Leave a few numbers on axes that are numbered: more would touch in a small image."""
    for axis in (ax.xaxis, ax.yaxis):
        if isinstance(axis.get_major_locator(), AutoLocator):
            axis.set_major_locator(MaxNLocator(4))


def hatch(ax: Axes) -> None:
    """Tell filled shapes apart as black-and-white print does."""
    patterns = ["////", "....", "xxxx", "\\\\\\\\", "||||", "----", "oooo"]
    shapes = [*ax.patches, *(c for c in ax.collections if isinstance(c, PolyCollection))]
    for i, shape in enumerate(shapes):
        shape.set_hatch(patterns[i * 7 // max(len(shapes), 7)])
        shape.set_edgecolor("#000000")


def draw_figure(class_name: str, rng: Generator, look: Look) -> Image.Image:
    """Draw one chart in the given look, whatever the user's own matplotlib settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(look.rc)
        figure = Figure(figsize=(look.width / 72, look.height / 72))
        FigureCanvasAgg(figure)
        for ax in figure.subplots(*look.panels, squeeze=False).flat:
            CHARTS[class_name](ax, rng, look)
            add_remarks(ax, rng, look)
            if look.hatched:
                hatch(ax)
            if look.legend:
                add_legend(ax, rng, look)
            if not look.tick_labels:
                ax.tick_params(labelbottom=False, labelleft=False)
            thin_ticks(ax)
            ax.set_xlabel(look.labels[0])
            ax.set_ylabel(look.labels[1])
        figure.axes[0].set_title(look.title)
        left, bottom, right, top = rng.uniform(0, 0.05, size=4)
        figure.tight_layout(pad=0.3, rect=(left, bottom, 1 - right, 1 - top))
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3]))


# --- shifted: what training never shows -----------------------------------------------------------


def dark(look: Look, rng: Generator) -> None:
    paper = pick(rng, ["#000000", "#111827", "#1e1e1e", "#0b2b3c", "#2b1b2f"])
    look.paper, look.ink = paper, "#f2f2f2"
    colors = [*CYCLES["tol"], *CYCLES["pastel"]]
    look.colors = [to_rgb(color) for color in rng.permutation(colors)[:7]]
    look.colormap = LinearSegmentedColormap.from_list("dark", [paper, look.colors[0], "#ffffff"])
    look.rc |= {"figure.facecolor": paper, "axes.facecolor": paper, "grid.color": "#4b5563"}
    for key in [
        "text.color",
        "axes.labelcolor",
        "axes.titlecolor",
        "axes.edgecolor",
        "xtick.color",
        "ytick.color",
    ]:
        look.rc[key] = look.ink


def sketch(look: Look, rng: Generator) -> None:
    look.rc |= {"path.sketch": (rng.uniform(0.8, 1.3), rng.uniform(40, 80), 2), "axes.grid": False}
    look.rc |= {"figure.facecolor": "#ffffff", "axes.facecolor": "#ffffff", "lines.linewidth": 1.6}
    look.paper, look.line_width = "#ffffff", 1.6


def black_and_white(look: Look, rng: Generator) -> None:
    look.rc |= {"figure.facecolor": "#ffffff", "axes.facecolor": "#ffffff", "grid.color": "#cccccc"}
    look.paper, look.ink, look.hatched = "#ffffff", "#000000", True
    look.colors = [
        (shade,) * 3 for shade in rng.permutation([0.0, 0.2, 0.35, 0.45, 0.55, 0.65, 0.72])
    ]
    look.colormap = matplotlib.colormaps["Greys"]
    for key in [
        "text.color",
        "axes.labelcolor",
        "axes.titlecolor",
        "axes.edgecolor",
        "xtick.color",
        "ytick.color",
    ]:
        look.rc[key] = look.ink


def leave(look: Look, rng: Generator) -> None:
    """Leave the look as it is: the image is changed after drawing."""


def keep(image: Image.Image, rng: Generator) -> Image.Image:
    return image


def invert(image: Image.Image, rng: Generator) -> Image.Image:
    return ImageChops.invert(image)


def low_resolution(image: Image.Image, rng: Generator) -> Image.Image:
    factor = rng.uniform(2.4, 3.2)
    small = image.resize([round(side / factor) for side in image.size], Image.Resampling.BOX)
    return small.resize(
        image.size, pick(rng, [Image.Resampling.NEAREST, Image.Resampling.BILINEAR])
    )


def photocopy(image: Image.Image, rng: Generator) -> Image.Image:
    """Blur, lose the colours, raise the contrast with the paper, and add specks of toner."""
    blurred = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 0.8)))
    pixels = np.asarray(blurred, dtype=float)
    ink = np.abs(pixels - pixels[1, 1]).max(axis=-1)  # the corner is paper
    pixels = 250 - np.clip(ink * rng.uniform(1.6, 2.4), 0, 235)
    specks = rng.random(pixels.shape)
    pixels[specks < 0.003] = 60
    pixels[specks > 0.985] = 240
    return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")


def compressed(image: Image.Image, rng: Generator) -> Image.Image:
    """Save as a very small JPEG, as images sent around many times are."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(8, 18)))
    return Image.open(file).convert("RGB")


def photographed(image: Image.Image, rng: Generator) -> Image.Image:
    """Turn into a slanted photo of a sheet on a table, with a shadow across it."""
    width, height = image.size
    table = tuple(int(x) for x in rng.integers(60, 190, size=3))
    corners = np.array([(0, 0), (0, height), (width, height), (width, 0)], dtype=float)
    center = np.array([width, height]) / 2
    angle = np.deg2rad(rng.uniform(4, 10) * rng.choice([-1, 1]))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    seen = (
        center + ((corners - center) @ turn.T) * 0.9 + rng.uniform(-0.06, 0.06, size=(4, 2)) * width
    )
    white = Image.new("L", image.size, 255)
    coefficients = perspective(seen, corners)
    how = (image.size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)
    sheet = Image.new("RGB", image.size, table)
    sheet.paste(image.transform(*how), mask=white.transform(*how))
    ramp = np.linspace(rng.uniform(0.55, 0.75), 1, width)[:: pick(rng, [-1, 1])]
    shade = np.broadcast_to(np.round(ramp * 12) / 12, (height, width))[..., None]
    return Image.fromarray((np.asarray(sheet) * shade).astype(np.uint8))


def perspective(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Solve for the 8 coefficients with which Pillow maps points `source` to `target`, (4, 2)."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.linalg.solve(np.array(rows), target.ravel())


def squeezed(image: Image.Image, rng: Generator) -> Image.Image:
    """Squash to little more than half the width or height, on a sheet of the old size."""
    width, height = image.size
    factor = rng.uniform(0.52, 0.66)
    size = (round(width * factor), height) if chance(rng, 0.5) else (width, round(height * factor))
    sheet = Image.new("RGB", image.size, image.getpixel((1, 1)))
    sheet.paste(
        image.resize(size, Image.Resampling.BICUBIC),
        ((width - size[0]) // 2, (height - size[1]) // 2),
    )
    return sheet


def on_a_page(image: Image.Image, rng: Generator) -> Image.Image:
    """Shrink into a page of a report, between lines of text too small to read."""
    width, height = image.size
    page = Image.new("RGB", image.size, "#fcfcfa")
    pen = ImageDraw.Draw(page)
    for y in range(6, height - 4, 6):
        end = width - 8 if chance(rng, 0.8) else int(width * rng.uniform(0.3, 0.9))
        x = 8
        while x < end:
            word = int(rng.integers(3, 14))
            pen.rectangle([x, y, min(x + word, end), y + 1], fill="#777777")
            x += word + 4
    small = image.resize((round(width * 0.64), round(height * 0.64)), Image.Resampling.LANCZOS)
    x = round(width * rng.uniform(0.1, 0.26))
    y = round(height * rng.uniform(0.1, 0.26))
    pen.rectangle([x - 4, y - 4, x + small.width + 3, y + small.height + 3], fill="#fcfcfa")
    page.paste(small, (x, y))
    return page


SHIFTS = {  # style: what changes before drawing, what changes after
    "dark": (dark, keep),
    "sketch": (sketch, keep),
    "hatched": (black_and_white, keep),
    "inverted": (leave, invert),
    "lowres": (leave, low_resolution),
    "photocopy": (leave, photocopy),
    "jpeg": (leave, compressed),
    "photo": (leave, photographed),
    "squeezed": (leave, squeezed),
    "page": (leave, on_a_page),
}
SHIFTED_STYLES = list(SHIFTS)


# --- images and folders -------------------------------------------------------------------------


def shifted_style(index: int) -> str:
    return SHIFTED_STYLES[index % len(SHIFTED_STYLES)]


def file_name(split: str, index: int) -> str:
    return f"{index:02d}_{shifted_style(index)}.png" if split == "shifted" else f"{index:02d}.png"


def draw(split: str, class_name: str, index: int, seed: int = 42) -> Image.Image:
    """Draw one image, as an RGB image; it depends on the four arguments alone."""
    rng = np.random.default_rng(
        [seed, list(COUNTS).index(split), CLASS_NAMES.index(class_name), index]
    )
    look = choose_look(rng)
    if split != "shifted":
        return draw_figure(class_name, rng, look)
    restyle, rework = SHIFTS[shifted_style(index)]
    restyle(look, rng)
    return rework(draw_figure(class_name, rng, look), rng)


def encode(image: Image.Image) -> bytes:
    """Encode as a PNG of few colours, without date or software."""
    file = io.BytesIO()
    image.quantize(PALETTE_SIZE, method=Image.Quantize.MEDIANCUT).save(file, "PNG", optimize=True)
    return file.getvalue()


def write_picture(job: tuple[Path, str, str, int, int]) -> None:
    folder, split, class_name, index, seed = job
    path = folder / split / class_name / file_name(split, index)
    path.write_bytes(encode(draw(split, class_name, index, seed)))


def versions() -> dict[str, str]:
    """Return what, besides the seed, decides about the pixels."""
    return {
        "matplotlib": matplotlib.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
    }


def write_all(folder: Path, seed: int) -> None:
    """Draw every image into `folder/<split>/<class>/`, on all processors."""
    jobs = []
    for split, count in COUNTS.items():
        for class_name in CLASS_NAMES:
            (folder / split / class_name).mkdir(parents=True)
            jobs += [(folder, split, class_name, index, seed) for index in range(count)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(write_picture, jobs, chunksize=16):
            pass
    record = {"seed": seed, "counts": COUNTS, **versions()}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def replace(target: Path, drawn: Path) -> None:
    """Move `drawn` to `target`, and what was there away only once that is done."""
    old = drawn.parent / "old"
    if target.exists():
        target.rename(old)
    drawn.rename(target)


def check_target(target: Path, overwrite: bool) -> None:
    """Stop unless `target` is new, or was drawn by this module and may be overwritten."""
    if not target.exists():
        return
    if not overwrite:
        raise SystemExit(
            f"{target} exists: nothing drawn. Add --overwrite to replace it or choose another --out"
        )
    if not (target / RECORD).is_file():
        raise SystemExit(
            f"{target} has no {RECORD}, so it was not drawn by this command and is not replaced. "
            "Choose another --out, or move that folder away."
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python data/draw_charts.py", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_DIR, help="folder to draw into (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=42, help="(%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder drawn earlier")
    options = parser.parse_args(arguments)
    target = options.out.resolve()
    check_target(target, options.overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".charts-") as temporary:
        drawn = Path(temporary) / "new"
        write_all(drawn, options.seed)
        replace(target, drawn)
    files = list(target.rglob("*.png"))
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{len(files):,} images of {len(CLASS_NAMES)} classes, {size:.1f} MB, in {target}")


if __name__ == "__main__":
    main()
