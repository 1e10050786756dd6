//! The known name that a mistyped one was probably meant to be.

/// The name among `known` that was most likely meant.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let nearest = known.map(|known| (distance(name, known), known)).min();
    nearest.filter(|(distance, known)| *distance <= known.len().max(name.len()).div_ceil(2)).map(|(_, known)| known)
}

/// How many single-character edits lie between two names.
///
/// Source: Levenshtein 1966, the two-row form.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(!from.eq_ignore_ascii_case(to));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_slip_finds_its_key() {
        let keys = ["policy", "priority_levels", "queue_depth"];
        assert_eq!(nearest("polcy", keys.into_iter()), Some("policy"));
        assert_eq!(nearest("queue_depht", keys.into_iter()), Some("queue_depth"));
        assert_eq!(nearest("zzzzzzzz", keys.into_iter()), None);
    }

    #[test]
    fn the_distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
