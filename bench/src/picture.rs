//! One picture of a run: how many times better than the async peer each row is, with its spread.

use std::fmt::Write as _;

use crate::harness::Row;

/// The width of everything, of the names on the left, and of the figures on the right.
const WIDTH: f64 = 900.0;
const NAMES: f64 = 270.0;
const FIGURES: f64 = 70.0;

const ROW: f64 = 18.0;
const HEAD: f64 = 44.0;

/// What is beyond this on either side is drawn at the edge; its figure says how much it is.
const MOST: f64 = 32.0;

/// An SVG of the rows that have the peer; none if no row has.
pub fn draw(rows: &[Row]) -> Option<String> {
    let bars: Vec<Bar> = rows.iter().filter_map(Bar::of).collect();
    if bars.is_empty() {
        return None;
    }
    let height = HEAD + ROW * bars.len() as f64 + 8.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"{NAMES}\" y=\"16\" text-anchor=\"end\" font-weight=\"bold\">case</text>\n"
    );
    // Writing into a String cannot fail.
    let mut line = |words: String| {
        let _ = writeln!(svg, "{words}");
    };
    let bottom = height - 4.0;
    for times in [1.0 / 16.0, 0.25, 0.5, 1.0, 2.0, 4.0, 16.0] {
        let (x, colour) = (place(times), if times == 1.0 { "#333333" } else { "#dddddd" });
        let words = if times < 1.0 {
            format!("{}× worse", 1.0 / times)
        } else if times > 1.0 {
            format!("{times}× better")
        } else {
            "as the peer".to_owned()
        };
        line(format!(
            "<line x1=\"{x:.1}\" y1=\"28\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"{colour}\"/>\n\
             <text x=\"{x:.1}\" y=\"22\" text-anchor=\"middle\" font-size=\"10\">{words}</text>"
        ));
    }
    for (number, bar) in bars.iter().enumerate() {
        line(bar.drawn(HEAD + ROW * number as f64));
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// A row as it is drawn: how many times better its medians are, and its rounds at the least and
/// at the most.
struct Bar<'r> {
    name: &'r str,
    times: f64,
    spread: (f64, f64),
}

impl<'r> Bar<'r> {
    fn of(row: &'r Row) -> Option<Self> {
        // Of a time, processor time or memory less is better.
        let better = |ratio: f64| if row.unit == "1/s" { ratio } else { 1.0 / ratio };
        let times = better(row.ratio_async()?);
        let rounds = row.ours.rounds().iter().zip(row.peer.rounds());
        let (least, most) = rounds
            .map(|(ours, peer)| better(ours / peer))
            .fold((times, times), |(least, most), one| (least.min(one), most.max(one)));
        let all_finite = [times, least, most].iter().all(|one| one.is_finite());
        all_finite.then_some(Self { name: &row.case, times, spread: (least, most) })
    }

    fn drawn(&self, top: f64) -> String {
        let (middle, text) = (top + ROW / 2.0, top + ROW / 2.0 + 4.0);
        let (one, times) = (place(1.0), place(self.times));
        let colour = if self.times >= 1.0 { "#2f7d4f" } else { "#b5482f" };
        format!(
            "<text x=\"{names}\" y=\"{text:.1}\" text-anchor=\"end\">{name}</text>\n\
             <rect x=\"{left:.1}\" y=\"{bar:.1}\" width=\"{wide:.1}\" height=\"10\" \
             fill=\"{colour}\"/>\n\
             <line x1=\"{least:.1}\" y1=\"{middle:.1}\" x2=\"{most:.1}\" y2=\"{middle:.1}\" \
             stroke=\"#111111\"/>\n\
             <text x=\"{figures}\" y=\"{text:.1}\">{shown}</text>",
            names = NAMES - 6.0,
            name = self.name,
            left = one.min(times),
            bar = middle - 5.0,
            wide = (one - times).abs(),
            least = place(self.spread.0),
            most = place(self.spread.1),
            figures = WIDTH - FIGURES + 12.0,
            shown = if self.times < 10.0 {
                format!("{:.2}×", self.times)
            } else {
                format!("{:.0}×", self.times)
            },
        )
    }
}

/// Where a ratio is on the axis, whose steps are doublings.
fn place(times: f64) -> f64 {
    let room = (WIDTH - NAMES - FIGURES) / 2.0;
    NAMES + room + room * times.clamp(1.0 / MOST, MOST).log2() / MOST.log2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Series;

    fn row(case: &str, unit: &'static str, ours: Vec<f64>, peer: Vec<f64>) -> Row {
        let (ours, peer, floor) = (Series::of(ours), Series::of(peer), Series::default());
        Row { case: case.to_owned(), unit, ours, peer, floor }
    }

    #[test]
    fn a_time_is_better_when_it_is_less_and_a_rate_when_it_is_more() {
        let (rate, time) =
            (row("r", "1/s", vec![4.0], vec![2.0]), row("t", "us", vec![2.0], vec![4.0]));
        for row in [&rate, &time] {
            assert_eq!(Bar::of(row).map(|bar| bar.times), Some(2.0));
        }
    }

    #[test]
    fn the_spread_is_that_of_the_rounds() {
        let row = row("r", "1/s", vec![1.0, 2.0, 4.0], vec![1.0, 1.0, 1.0]);
        assert_eq!(Bar::of(&row).map(|bar| bar.spread), Some((1.0, 4.0)));
    }

    #[test]
    fn rows_without_the_peer_are_not_in_it() {
        let alone = row("alone", "1/s", vec![1.0], vec![]);
        assert!(draw(std::slice::from_ref(&alone)).is_none());
        let drawn = draw(&[alone, row("both", "1/s", vec![1000.0], vec![1.0])]).expect("one row");
        assert!(drawn.contains(">both<") && drawn.contains(">1000×<") && !drawn.contains("alone"));
    }

    #[test]
    fn what_is_far_off_is_drawn_at_the_edge() {
        assert_eq!(place(1e6), WIDTH - FIGURES);
        assert_eq!(place(1e-6), NAMES);
    }
}
