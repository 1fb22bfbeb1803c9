"""Export of one verdict as a PDF report, A4: the paragraph, the values beside their normal ranges, and all opinions."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from fpdf import FPDF
from fpdf.enums import XPos, YPos
from numpy.typing import NDArray

from cloud.evidence.facts import facts_of, is_baseline, paragraph_of
from cloud.evidence.latency import stages_of
from cloud.evidence.pictures import picture_png, with_overlay
from cloud.evidence.reading import Evidence
from cloud.evidence.series import Channel, SeriesPlot, channel_words
from cloud.evidence.standing import Side, figure
from cloud.modalities import View, cloud_modality
from cloud.store.labels import StoredLabel
from cloud.words import NO_FIGURE, duration_words, moment_words, number_words, p_value_words
from shared.samples import Decision

MARGIN_MM, WIDTH_MM = 18.0, 174.0
PICTURE_MM, PLOT_MM = 105.0, 24.0  # height of a picture, and of a channel
MAX_CHANNELS, MAX_FEATURES, MAX_COLUMNS = 6, 24, 400
MAX_CHARACTERS = 400  # of one text of a device
_TEXT, _DIM, _LINE = (27, 32, 39), (90, 100, 114), (225, 228, 233)
_BAD, _GOOD, _ACCENT, _WARN = (181, 32, 42), (40, 113, 62), (44, 103, 181), (138, 83, 0)
_BAND = (222, 238, 226)
_DECISION = {Decision.ANOMALOUS: _BAD, Decision.NORMAL: _GOOD, Decision.UNDECIDED: _WARN}


class _Report(FPDF):
    """Pages with a footer that names the sample."""

    def __init__(self, footer: str) -> None:
        super().__init__(format="A4")
        self._footer = footer
        spec = importlib.util.find_spec("matplotlib")  # its fonts cover most scripts; nothing of it is imported
        assert spec is not None
        assert spec.origin is not None
        fonts = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
        self.add_font("Sans", "", fonts / "DejaVuSans.ttf")
        self.add_font("Sans", "B", fonts / "DejaVuSans-Bold.ttf")
        self.set_margins(MARGIN_MM, MARGIN_MM)
        self.set_auto_page_break(True, MARGIN_MM)

    def footer(self) -> None:
        """Write the sample and the number of the page."""
        self.set_y(-MARGIN_MM + 4)
        self.text_style(7, _DIM)
        self.cell(WIDTH_MM / 2, 4, self._footer)
        self.cell(WIDTH_MM / 2, 4, f"{self.page_no()} of {{nb}}", align="R")

    def text_style(self, size: float, colour: tuple[int, int, int] = _TEXT, style: str = "") -> None:
        """Set size, colour and weight of the text that follows."""
        self.set_font("Sans", style, size)
        self.set_text_color(*colour)

    def paragraph(self, text: str, size: float = 9, colour: tuple[int, int, int] = _TEXT) -> None:
        """Write a paragraph of running text."""
        self.text_style(size, colour)
        self.multi_cell(WIDTH_MM, size * 0.5, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def heading(self, text: str) -> None:
        """Write a heading, on the next page if nothing would fit below it."""
        if self.get_y() > self.h - MARGIN_MM - 25:
            self.add_page()
        self.ln(4)
        self.text_style(9, _DIM, "B")
        self.cell(WIDTH_MM, 5, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def rows(self, rows: Sequence[Sequence[str]], widths: Sequence[float]) -> None:
        """Write rows of texts with a line below each."""
        self.set_draw_color(*_LINE)
        for row in rows:
            if self.get_y() > self.h - MARGIN_MM - 6:
                self.add_page()
            for place, (text, width) in enumerate(zip(row, widths, strict=True)):
                self.text_style(8, _DIM if place == 0 else _TEXT)
                self.cell(width, 5, _fitted(self, text, width - 2), border="B")
            self.ln()


def report_pdf(evidence: Evidence) -> bytes:
    """Return the report. Blocking: it draws and embeds fonts."""
    record = evidence.record
    report = _Report(f"Vedette · sample {record.sample_id}")
    report.set_title(f"Verdict on sample {record.sample_id}")
    report.set_lang("en")
    report.add_page()
    report.text_style(16, _DECISION[record.decision], "B")
    report.cell(WIDTH_MM, 8, record.decision.value.capitalize(), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    where = f"{record.device_id} · {record.source_id} · {moment_words_or_seconds(record.captured_at_s)}"
    report.paragraph(where[:MAX_CHARACTERS], 9, _DIM)
    report.ln(2)
    report.paragraph(paragraph_of(facts_of(evidence)), 10)
    for gap in evidence.gaps:
        report.paragraph(gap, 8, _WARN)
    report.ln(3)
    _view(report, evidence)
    _opinions(report, evidence)
    _facts(report, evidence)
    return bytes(report.output())


def moment_words_or_seconds(at_s: float) -> str:
    """Return a time in UTC; the number itself where no calendar has it."""
    try:
        return moment_words(at_s)
    except (ValueError, OverflowError, OSError):
        return f"{at_s:g} s"


def _view(report: _Report, evidence: Evidence) -> None:
    values, view = evidence.contents.values, cloud_modality(evidence.record.modality).view
    if values is not None and view in (View.PICTURE, View.CLIP):
        pixels = values if view is View.PICTURE else values[-1]
        _picture(report, evidence, pixels.astype(np.uint8, copy=False))
    elif evidence.series is not None:
        for channel in evidence.series.channels[:MAX_CHANNELS]:
            _channel(report, channel, evidence.series)
    elif evidence.features:
        _features(report, evidence)


def _picture(report: _Report, evidence: Evidence, pixels: NDArray[np.uint8]) -> None:
    contents = evidence.contents
    cells = contents.cloud_map if contents.cloud_map is not None else contents.edge_map
    shown = [picture_png(pixels)] + ([picture_png(with_overlay(pixels, cells))] if cells is not None else [])
    ratio = pixels.shape[1] / pixels.shape[0]
    width = min((WIDTH_MM - 4) / len(shown), PICTURE_MM * ratio)
    top = report.get_y()
    for place, data in enumerate(shown):
        report.image(data, x=MARGIN_MM + place * (width + 4), y=top, w=width, alt_text="The sample")
    report.set_y(top + width / ratio + 2)


def _channel(report: _Report, channel: Channel, plot: SeriesPlot) -> None:
    """Draw one channel: the normal range, the window, the expected values and the readings."""
    if report.get_y() > report.h - MARGIN_MM - PLOT_MM - 12:
        report.add_page()
    report.text_style(8, _TEXT, "B")
    report.cell(WIDTH_MM, 4, _fitted(report, channel.name, WIDTH_MM), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    report.paragraph(f"{channel_words(channel, plot)}.", 7.5, _DIM)
    top = report.get_y() + 1
    parts = [channel.values[np.isfinite(channel.values)]]
    if channel.normal is not None:
        parts.append(np.array([channel.normal.low, channel.normal.high]))
    ends = np.concatenate(parts)
    if not len(ends):
        return
    low, high = float(ends.min()), float(ends.max())
    span = (high - low) or 1.0

    def y(value: float) -> float:
        return top + PLOT_MM - min(max((value - low) / span, 0.0), 1.0) * PLOT_MM

    def x(row: float) -> float:
        return MARGIN_MM + row / max(1, plot.rows - 1) * WIDTH_MM

    if channel.normal is not None:
        report.set_fill_color(*_BAND)
        band = y(channel.normal.high), y(channel.normal.low)
        report.rect(MARGIN_MM, band[0], WIDTH_MM, max(0.3, band[1] - band[0]), style="F")
    report.set_draw_color(*_DIM)
    report.set_line_width(0.2)
    report.rect(x(plot.begin), top, x(plot.begin + plot.length - 1) - x(plot.begin), PLOT_MM)
    for column, colour in ((channel.expected, _WARN), (channel.values, _ACCENT)):
        if column is not None:
            report.set_draw_color(*colour)
            _line(report, column, x, y)
    report.set_y(top + PLOT_MM + 2)


def _line(
    report: _Report, column: NDArray[np.float64], x: Callable[[float], float], y: Callable[[float], float]
) -> None:
    step = max(1, len(column) // MAX_COLUMNS)
    points: list[tuple[float, float]] = []
    for row in range(0, len(column), step):
        if np.isfinite(column[row]):
            points.append((x(row), y(float(column[row]))))
            continue
        if len(points) > 1:
            report.polyline(points)
        points = []
    if len(points) > 1:
        report.polyline(points)


def _features(report: _Report, evidence: Evidence) -> None:
    rows = [("Feature", "Value", "Normal range", "Where", "Expected")]
    for each in evidence.features[:MAX_FEATURES]:
        width = each.normal.width if each.normal is not None else 0.0
        side = {Side.BELOW: "too low", Side.ABOVE: "too high", Side.WITHIN: "within"}.get(each.side, each.side.value)
        expected = "" if each.typical is None else figure(each.typical[1], width)
        normal = "" if each.normal is None else each.normal.words
        rows.append((each.name, figure(each.value, width), normal, side, expected))
    report.rows(rows, (62, 28, 40, 22, 22))
    if len(evidence.features) > MAX_FEATURES:
        report.paragraph(f"The first {MAX_FEATURES} of {len(evidence.features)} features.", 7.5, _DIM)


def _opinions(report: _Report, evidence: Evidence) -> None:
    record = evidence.record
    report.heading("Opinions")
    fused = NO_FIGURE if record.p_value is None else p_value_words(record.p_value, record.extrapolated)
    rows = [
        (
            f"Edge ({record.artefact})",
            number_words(record.edge_score),
            p_value_words(record.edge_p_value, record.edge_extrapolated),
        ),
        ("Cloud, fused", "", fused),
    ]
    for each in record.opinions:
        name = f"{each.analyzer} (baseline)" if is_baseline(each, evidence) else each.analyzer
        rows.append((name, number_words(each.score), p_value_words(each.p_value, each.extrapolated)))
    report.rows(rows, (94, 30, 50))
    report.paragraph("† beyond the calibration data: read it as an order of magnitude.", 7, _DIM)


def _facts(report: _Report, evidence: Evidence) -> None:
    record = evidence.record
    report.heading("Facts")
    times = record.captured_at_s, record.sample_id, record.received_at_s, record.judged_at_s
    rows = [
        ("Route", record.route.value),
        ("Origin", record.origin),
        ("Received", moment_words_or_seconds(record.received_at_s)),
        ("Judged", moment_words_or_seconds(record.judged_at_s)),
        *((stage.name.capitalize(), duration_words(stage.seconds)) for stage in stages_of(*times)),
        ("Edge bundle", record.edge_bundle_id),
        ("Cloud bundle", record.bundle_id),
        *((f"Label of {label.author}", _label_words(label)) for label in evidence.labels),
    ]
    report.rows(rows, (44, 130))


def _label_words(label: StoredLabel) -> str:
    words = label.label.value.replace("_", " ")
    return f"{words}{f' ({label.defect_class})' if label.defect_class else ''} {label.note}"


def _fitted(report: _Report, text: str, width_mm: float) -> str:
    """Return a text on one line, cut where it would not fit."""
    text = " ".join(text[:MAX_CHARACTERS].split())
    if report.get_string_width(text) <= width_mm:
        return text
    while text and report.get_string_width(f"{text}…") > width_mm:
        text = text[:-1]
    return f"{text}…"
