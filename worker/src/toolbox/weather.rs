//! The data set of the stock worker, and what is worth knowing about it: daily weather at Seattle,
//! 2012 to 2015 (source: data/README.md).

use std::{collections::BTreeMap, sync::LazyLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const CSV: &str = include_str!("../../data/seattle-weather.csv");

/// All days, in order of date.
pub(crate) static DAYS: LazyLock<Vec<Day>> =
    LazyLock::new(|| CSV.lines().skip(1).filter_map(Day::parse).collect());

/// One day's weather.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Day {
    /// Date, `YYYY-MM-DD`.
    pub date: String,
    /// Precipitation in mm.
    pub precipitation_mm: f64,
    /// Highest temperature in °C.
    pub temperature_max_c: f64,
    /// Lowest temperature in °C.
    pub temperature_min_c: f64,
    /// Mean wind speed in m/s.
    pub wind_m_s: f64,
}

impl Day {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(',');
        let date = fields.next()?.to_owned();
        let mut number = || fields.next()?.parse().ok();
        Some(Self {
            date,
            precipitation_mm: number()?,
            temperature_max_c: number()?,
            temperature_min_c: number()?,
            wind_m_s: number()?,
        })
    }

    /// The two digits of the month.
    pub(crate) fn month(&self) -> &str {
        self.date.get(5..7).unwrap_or_default()
    }

    /// The two digits of the day of the month.
    pub(crate) fn day_of_month(&self) -> &str {
        self.date.get(8..).unwrap_or_default()
    }

    pub(crate) fn year(&self) -> &str {
        self.date.get(..4).unwrap_or_default()
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Precipitation in mm.
    #[default]
    Precipitation,
    /// Highest temperature of the day in °C.
    TemperatureMax,
    /// Lowest temperature of the day in °C.
    TemperatureMin,
    /// Mean wind speed in m/s.
    Wind,
}

impl Measure {
    pub(crate) fn of(self, day: &Day) -> f64 {
        match self {
            Self::Precipitation => day.precipitation_mm,
            Self::TemperatureMax => day.temperature_max_c,
            Self::TemperatureMin => day.temperature_min_c,
            Self::Wind => day.wind_m_s,
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Precipitation => "mm",
            Self::TemperatureMax | Self::TemperatureMin => "°C",
            Self::Wind => "m/s",
        }
    }
}

/// How days are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// The same month of all years.
    #[default]
    Month,
    /// The same year.
    Year,
}

/// What is known of one group of days.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct GroupReport {
    /// The month (`01` to `12`) or the year.
    pub group: String,
    /// Number of days.
    pub days: usize,
    /// Mean of the measure over the days.
    pub mean: f64,
    /// Lower bound of the mean's 95 % interval.
    pub low: f64,
    /// Upper bound of the mean's 95 % interval.
    pub high: f64,
    /// Smallest value of a single day.
    pub min: f64,
    /// Largest value of a single day.
    pub max: f64,
}

/// A bootstrap estimate in progress: each step draws every group anew, with replacement. The draws depend
/// on the number of the step alone, so that the same report comes out each time.
pub(crate) struct Bootstrap {
    groups: Vec<(String, Vec<f64>, Vec<f64>)>,
}

impl Bootstrap {
    pub(crate) fn new(measure: Measure, by: Group) -> Self {
        let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for day in DAYS.iter() {
            let key = match by {
                Group::Month => day.month(),
                Group::Year => day.year(),
            };
            groups.entry(key).or_default().push(measure.of(day));
        }
        Self {
            groups: groups.into_iter().map(|(key, values)| (key.to_owned(), values, Vec::new())).collect(),
        }
    }

    pub(crate) fn step(&mut self, step: u64) {
        let mut draw = SplitMix(step);
        for (_, values, means) in &mut self.groups {
            let drawn = (0..values.len()).filter_map(|_| values.get(draw.below(values.len()))).sum::<f64>();
            means.push(drawn / values.len() as f64);
        }
    }

    pub(crate) fn report(self) -> Vec<GroupReport> {
        self.groups
            .into_iter()
            .map(|(group, values, mut means)| {
                means.sort_by(f64::total_cmp);
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                GroupReport {
                    group,
                    days: values.len(),
                    mean: rounded(mean),
                    low: rounded(quantile(&means, 0.025).unwrap_or(mean)),
                    high: rounded(quantile(&means, 0.975).unwrap_or(mean)),
                    min: values.iter().copied().fold(f64::INFINITY, f64::min),
                    max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                }
            })
            .collect()
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The value below which `share` of the sorted values lie (nearest rank).
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((share * last as f64).round() as usize).copied()
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine and in every release.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, by the upper bits of a product; the bias is below 2⁻⁵⁰ for these sizes.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_set_is_whole() {
        assert_eq!(DAYS.len(), 1461);
        assert_eq!(DAYS[0].date, "2012-01-01");
        assert_eq!(DAYS[1460].date, "2015-12-31");
        assert!(DAYS.is_sorted_by(|one, next| one.date < next.date));
        assert!(DAYS.iter().all(|day| day.temperature_min_c <= day.temperature_max_c));
        assert!(DAYS.iter().all(|day| day.precipitation_mm >= 0.0 && day.wind_m_s > 0.0));
    }

    #[test]
    fn a_report_is_the_same_each_time_and_its_interval_holds_the_mean() {
        let report = || {
            let mut bootstrap = Bootstrap::new(Measure::TemperatureMax, Group::Month);
            (1..=200).for_each(|step| bootstrap.step(step));
            bootstrap.report()
        };
        let groups = report();
        assert_eq!(groups, report());
        assert_eq!(groups.len(), 12);
        assert_eq!(groups.iter().map(|group| group.days).sum::<usize>(), 1461);
        for group in &groups {
            assert!(group.low < group.mean && group.mean < group.high, "{group:?}");
            assert!(group.high - group.low < 3.0, "{group:?}");
        }
        assert!(groups[6].mean > groups[0].mean + 10.0, "July is warmer than January");
    }

    #[test]
    fn one_step_is_enough_for_a_report() {
        let mut bootstrap = Bootstrap::new(Measure::Wind, Group::Year);
        bootstrap.step(1);
        let groups = bootstrap.report();
        assert_eq!(
            groups.iter().map(|group| group.group.as_str()).collect::<Vec<_>>(),
            ["2012", "2013", "2014", "2015"]
        );
        assert!(groups.iter().all(|group| group.low == group.high));
    }
}
