//! A family of metrics, and the page that families are written to.

use anyhow::{Context, Result};
use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType, Summary};

use super::facts::Times;

/// The most series of a family with one for each object of the file: services, backends, rules, prefixes. A family that
/// would have more is not written, and `dpd_metric_series_truncated` has their number.
pub const SERIES_MAX: usize = 10_000;

/// A metric with all its series.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    /// The names of its series' labels.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only increases, until the next start.
    Counter,
    Gauge,
    /// A count and a sum of seconds.
    Summary,
}

impl Kind {
    /// Its name in Prometheus.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
        }
    }
}

pub(super) const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        labels,
        help,
    }
}

pub(super) const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        kind: Kind::Gauge,
        ..counter(name, labels, help)
    }
}

pub(super) const fn summary(name: &'static str, help: &'static str) -> Family {
    Family {
        kind: Kind::Summary,
        ..counter(name, &[], help)
    }
}

const TRUNCATED: Family = gauge(
    "dpd_metric_series_truncated",
    &["metric"],
    "Series of a metric that are missing from the page, as there are more than 10000 of them.",
);
const SUCCESS: Family = gauge(
    "dpd_collector_success",
    &["collector"],
    "Whether this part of the page could be read.",
);

pub(super) const FAMILIES: &[Family] = &[TRUNCATED, SUCCESS];

/// One series: the labels' values in the family's order, and its value.
pub(super) type Series = (Vec<String>, f64);

/// The text, written family by family, so that no large family is held twice.
#[derive(Default)]
pub(super) struct Page {
    text: String,
    truncated: Vec<Series>,
    success: Vec<Series>,
}

impl Page {
    /// A family with its series; nothing for a family without any.
    pub fn write(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = Series>,
    ) -> Result<()> {
        let metrics = series.into_iter().map(|(values, value)| {
            let mut metric = Metric::from_label(labels(family, values));
            match family.kind {
                Kind::Counter => {
                    let mut counter = Counter::default();
                    counter.set_value(value);
                    metric.set_counter(counter);
                }
                Kind::Gauge | Kind::Summary => {
                    let mut gauge = Gauge::default();
                    gauge.set_value(value);
                    metric.set_gauge(gauge);
                }
            }
            metric
        });
        self.encode(family, metrics.collect())
    }

    /// A family of one series.
    pub fn write_one(&mut self, family: &Family, value: f64) -> Result<()> {
        self.write(family, [(Vec::new(), value)])
    }

    /// A family with a series for each object of a kind in the file: only their number, if there are too many.
    pub fn write_bounded(
        &mut self,
        family: &Family,
        series: impl ExactSizeIterator<Item = Series>,
    ) -> Result<()> {
        if series.len() > SERIES_MAX {
            let truncated = (vec![family.name.to_owned()], series.len() as f64);
            self.truncated.push(truncated);
            return Ok(());
        }
        self.write(family, series)
    }

    pub fn write_times(&mut self, family: &Family, times: Times) -> Result<()> {
        let mut summary = Summary::default();
        summary.set_sample_count(times.count);
        summary.set_sample_sum(times.total.as_secs_f64());
        let mut metric = Metric::default();
        metric.set_summary(summary);
        self.encode(family, vec![metric])
    }

    /// The data of a collector, whose success is written to the page; `None` if it could not be read.
    pub fn take<'a, T>(&mut self, collector: &str, facts: &'a Option<T>) -> Option<&'a T> {
        let success = (vec![collector.to_owned()], f64::from(facts.is_some()));
        self.success.push(success);
        facts.as_ref()
    }

    pub fn finish(mut self) -> Result<String> {
        for (family, series) in [
            (&TRUNCATED, std::mem::take(&mut self.truncated)),
            (&SUCCESS, std::mem::take(&mut self.success)),
        ] {
            self.write(family, series)?;
        }
        Ok(self.text)
    }

    fn encode(&mut self, family: &Family, metrics: Vec<Metric>) -> Result<()> {
        if metrics.is_empty() {
            return Ok(());
        }
        let mut written = MetricFamily::default();
        written.set_name(family.name.to_owned());
        written.set_help(family.help.to_owned());
        written.set_field_type(match family.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Summary => MetricType::SUMMARY,
        });
        written.set_metric(metrics);
        TextEncoder::new()
            .encode_utf8(&[written], &mut self.text)
            .with_context(|| format!("write the metric {}", family.name))
    }
}

fn labels(family: &Family, values: Vec<String>) -> Vec<LabelPair> {
    let pair = |(name, value): (&&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value);
        pair
    };
    family.labels.iter().zip(values).map(pair).collect()
}
