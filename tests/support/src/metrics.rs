//! Reads the Prometheus text format.

use std::collections::BTreeMap;

/// One line of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the metric, with `_bucket`, `_sum`, `_count` where it has them.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// One scrape of `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Every line.
    pub samples: Vec<Sample>,
}

impl Metrics {
    /// Reads a scrape; lines that are no samples are left out.
    pub fn parse(text: &str) -> Self {
        Self { samples: text.lines().filter_map(sample).collect() }
    }

    /// The samples of a name that carry at least these labels.
    pub fn find<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).map(String::as_str) == Some(value))
        })
    }

    /// The value of the one sample that carries these labels; `None` if there is none or more than one.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.find(name, labels);
        match (found.next(), found.next()) {
            (Some(only), None) => Some(only.value),
            _ => None,
        }
    }

    /// The sum over all samples that carry these labels; 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).map(|sample| sample.value).sum()
    }
}

fn sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (head, labels, rest) = match line.find('{') {
        Some(open) => {
            let (labels, rest) = labels(&line[open + 1..])?;
            (&line[..open], labels, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, BTreeMap::new(), rest)
        }
    };
    let value = match rest.split_whitespace().next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    Some(Sample { name: head.trim().to_owned(), labels, value })
}

/// Reads labels up to the closing brace; gives what follows it.
fn labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.trim().to_owned(), value);
        text = &rest[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_found_by_name_and_labels() {
        let text = "# HELP a b\n# TYPE a gauge\na 1\nq{priority=\"0\",model=\"x{,}\\\"\"} 2.5\nq{priority=\"1\"} 4 170\n\
                    h_bucket{le=\"+Inf\"} 7\ni +Inf\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.get("a", &[]), Some(1.0));
        assert_eq!(metrics.get("q", &[("model", "x{,}\"")]), Some(2.5));
        assert_eq!(metrics.get("q", &[]), None);
        assert_eq!(metrics.sum("q", &[]), 6.5);
        assert_eq!(metrics.get("h_bucket", &[("le", "+Inf")]), Some(7.0));
        assert_eq!(metrics.get("i", &[]), Some(f64::INFINITY));
    }
}
