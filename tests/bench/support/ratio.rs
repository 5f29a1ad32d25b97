//! A figure of ours beside a peer's, taken in the same run.

/// One line of a benchmark's result.
pub struct Line<'a> {
    pub name: &'a str,
    /// What the figures are in, with the blank in front of it where one belongs: ` ms`, `%`.
    pub unit: &'a str,
    pub ours: f64,
    pub peer: f64,
    pub ratio: f64,
    pub target: Target,
}

/// What is asked of a figure.
pub enum Target {
    RatioAtMost(f64),
    RatioAtLeast(f64),
    AtMost(f64),
    AtLeast(f64),
    /// Nothing: the line is there to compare.
    None,
}

/// Figures taken in turn.
#[derive(Default)]
pub struct Pairs {
    pub ours: Vec<f64>,
    pub peer: Vec<f64>,
}

impl Pairs {
    pub fn push(&mut self, ours: f64, peer: f64) {
        self.ours.push(ours);
        self.peer.push(peer);
    }

    /// The medians of both, and the median of the ratios of the pairs: what else the machine did
    /// has hit both of a pair.
    pub fn line<'a>(&self, name: &'a str, unit: &'a str, target: Target) -> Line<'a> {
        let ratios = self.ours.iter().zip(&self.peer).map(|(ours, peer)| ours / peer).collect();
        let (ours, peer) = (median(self.ours.clone()), median(self.peer.clone()));
        Line { name, unit, ours, peer, ratio: median(ratios), target }
    }
}

impl<'a> Line<'a> {
    /// One of which each figure was taken once.
    pub fn new(name: &'a str, unit: &'a str, ours: f64, peer: f64, target: Target) -> Self {
        Self { name, unit, ours, peer, ratio: ours / peer, target }
    }

    pub fn print(&self) {
        let Self { name, unit, ours, peer, ratio, .. } = self;
        let (asked, met) = match self.target {
            Target::RatioAtMost(most) => (format!("ratio at most {most}"), *ratio <= most),
            Target::RatioAtLeast(least) => (format!("ratio at least {least}"), *ratio >= least),
            Target::AtMost(most) => (format!("ours at most {most}{unit}"), *ours <= most),
            Target::AtLeast(least) => (format!("ours at least {least}{unit}"), *ours >= least),
            Target::None => ("none".to_owned(), true),
        };
        let verdict = if met { "ok" } else { "MISSED" };
        let (ours, peer) = (figure(*ours), figure(*peer));
        println!(
            "{name}: ours {ours}{unit}, peer {peer}{unit}, ratio {ratio:.3} (target {asked}): {verdict}"
        );
    }
}

/// With three digits that count at least.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::MIN, f64::max)
}
