//! Plots of lines over two axes, as SVG.

use std::error::Error;
use std::ops::Range;

use plotters::element::DashedPathElement;
use plotters::prelude::*;

const SIZE: (u32, u32) = (900, 540);
const FONT: &str = "sans-serif";
/// Of the height of what is drawn.
const LEGEND_LINE: f64 = 0.07;
/// Colours that are told apart by those who see red and green alike (Okabe and Ito).
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

/// Lines over one pair of axes, both logarithmic: what grows in proportion is a straight line whatever its size.
#[derive(Debug, Default)]
pub struct Plot {
    /// The name of its file.
    pub file: &'static str,
    /// Above the picture.
    pub title: &'static str,
    /// What goes to the right, with its unit.
    pub x: &'static str,
    /// What goes up, with its unit.
    pub y: &'static str,
    /// Not more than there are colours, if they are to be told apart.
    pub lines: Vec<Line>,
}

/// One line of a plot.
#[derive(Debug)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// By x; above zero.
    pub points: Vec<(f64, f64)>,
    /// What ours is measured by is dashed.
    pub dashed: bool,
}

impl Line {
    /// A line of our own figures.
    pub fn ours(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, dashed: false }
    }

    /// A floor, a peer or a limit.
    pub fn beside(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, dashed: true }
    }
}

impl Plot {
    /// The picture, with `machine` below it.
    ///
    /// # Errors
    /// When nothing is to be drawn, or the drawing fails.
    pub(crate) fn svg(&self, machine: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
        let mut svg = String::new();
        // What the library says of its failure cannot be sent on.
        self.draw(&mut svg, machine).map_err(|error| format!("{}: {error}", self.file))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String, machine: &str) -> Result<(), Box<dyn Error>> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let [x, mut y] = [around(points().map(|point| point.0))?, around(points().map(|point| point.1))?];
        // The legend lies above the lines, and covers none.
        let lines = f64::from(u32::try_from(self.lines.len())?);
        y.end *= (y.end / y.start).powf(LEGEND_LINE * (lines + 1.0));
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let small = (FONT, 13).into_font().color(&BLACK.mix(0.6));
        root.draw_text(machine, &small, (16, i32::try_from(SIZE.1)? - 20))?;
        let (chart_area, _) = root.split_vertically(SIZE.1 - 26);
        let mut chart = ChartBuilder::on(&chart_area)
            .caption(self.title, (FONT, 20))
            .margin(14)
            .x_label_area_size(46)
            .y_label_area_size(66)
            .build_cartesian_2d(x.log_scale(), y.log_scale())?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .axis_desc_style((FONT, 15))
            .label_style((FONT, 13))
            .x_label_formatter(&label)
            .y_label_formatter(&label)
            .bold_line_style(BLACK.mix(0.14))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (line, color) in self.lines.iter().zip(COLORS.iter().cycle()) {
            let style = color.stroke_width(2);
            let points = || line.points.iter().copied();
            let key = |(x, y)| [(x, y), (x + 26, y)];
            if line.dashed {
                let drawn = chart.draw_series(DashedLineSeries::new(points(), 7, 5, style))?;
                drawn.label(&line.name).legend(move |at| DashedPathElement::new(key(at), 7, 5, style));
            } else {
                let drawn = chart.draw_series(LineSeries::new(points(), style))?;
                drawn.label(&line.name).legend(move |at| PathElement::new(key(at), style));
            }
            chart.draw_series(points().map(|point| Circle::new(point, 3, color.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font((FONT, 14))
            .draw()?;
        root.present()?;
        Ok(())
    }
}

/// From the last round number below all values to the first above them; a round one is 1, 2 or 5 times a power of ten.
fn around(values: impl Iterator<Item = f64>) -> Result<Range<f64>, String> {
    let (mut least, mut greatest) = (f64::INFINITY, 0.0_f64);
    for value in values {
        if !(value.is_finite() && value > 0.0) {
            return Err(format!("{value} has no place on a logarithmic axis"));
        }
        (least, greatest) = (least.min(value), greatest.max(value));
    }
    if greatest == 0.0 {
        return Err("there is nothing to draw".to_owned());
    }
    let rounds = || (-9..=12).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
    let below = rounds().rfind(|round| *round < least * 0.999).unwrap_or(least);
    let above = rounds().find(|round| *round > greatest * 1.001).unwrap_or(greatest);
    Ok(below..above)
}

/// Of a tick: without digits that say nothing, and of those between round numbers none, which would run into each other.
fn label(value: &f64) -> String {
    let digit = value / 10_f64.powf(value.abs().log10().floor());
    match value.abs() {
        _ if ![1.0, 2.0, 5.0].iter().any(|round| (digit - round).abs() < 1e-6) => String::new(),
        ..1.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>) -> Plot {
        let limit = Line::beside("the <limit>", vec![(1.0, 50.0), (1000.0, 50.0)]);
        let lines = vec![Line::ours("ours", points), limit];
        Plot { file: "a.svg", title: "Memory over applications", x: "applications", y: "memory (MiB)", lines }
    }

    #[test]
    fn axes_begin_and_end_at_round_numbers_around_all_values() {
        assert_eq!(around([3.0, 40.0, 1300.0].into_iter()), Ok(2.0..2000.0));
        assert_eq!(around([1.0, 100.0].into_iter()), Ok(0.5..200.0), "what lies on the edge would be cut off");
        assert!(around([1.0, 0.0].into_iter()).unwrap_err().contains("no place"));
        assert!(around(std::iter::empty()).unwrap_err().contains("nothing to draw"));
    }

    #[test]
    fn round_numbers_are_written_at_the_axes() {
        assert_eq!(
            [0.5, 1.0, 3.0, 20.0, 9000.0, 50_000.0].map(|value| label(&value)),
            ["0.50", "1", "", "20", "", "50000"]
        );
    }

    #[test]
    fn a_picture_has_its_axes_its_lines_by_name_and_the_machine() {
        let svg = plot(vec![(1.0, 9.0), (100.0, 12.0), (1000.0, 40.0)]).svg("a machine").unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
        for text in
            ["Memory over applications", "applications", "memory (MiB)", "ours", "the &lt;limit&gt;", "a machine"]
        {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        assert_eq!(svg.matches("<circle ").count(), 5, "each point is marked");
    }

    #[test]
    fn what_cannot_be_drawn_is_an_error_with_its_file() {
        let error = plot(vec![(1.0, -1.0)]).svg("a machine").unwrap_err();
        assert_eq!(error.to_string(), "a.svg: -1 has no place on a logarithmic axis");
    }
}
