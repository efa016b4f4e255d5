//! In which lines one text differs from another, for people, where that is little.

use crate::render;

/// Longest text that is compared, in lines: what is longer is no small difference to look at.
const MAX_LINES: usize = 200;

/// Most lines that are shown of a difference; the rest is counted.
const MAX_SHOWN: usize = 8;

/// Most columns of a line that are shown.
const MAX_COLUMNS: usize = 100;

/// The lines that only one of two texts has: `- ` of the first, `+ ` of the second, escaped. Nothing
/// where they are the same, where one is no text or where one is too long to compare.
#[must_use]
pub fn lines(most: &[u8], this: &[u8]) -> Vec<String> {
    let (Ok(most), Ok(this)) = (str::from_utf8(most), str::from_utf8(this)) else {
        return Vec::new();
    };
    let (most, this): (Vec<&str>, Vec<&str>) = (most.lines().collect(), this.lines().collect());
    if most.len() > MAX_LINES || this.len() > MAX_LINES {
        return Vec::new();
    }
    let mut shown: Vec<String> = changes(&most, &this)
        .into_iter()
        .map(|(sign, text)| format!("{sign} {}", render::cut(text, MAX_COLUMNS)))
        .collect();
    if let Some(more) = shown.len().checked_sub(MAX_SHOWN + 1) {
        shown.truncate(MAX_SHOWN);
        shown.push(format!("and {} more lines", more + 1));
    }
    shown
}

/// The lines outside of a longest common subsequence, in order.
fn changes<'a>(most: &[&'a str], this: &[&'a str]) -> Vec<(char, &'a str)> {
    let common = common(most, this);
    let at = |i: usize, j: usize| {
        let row = common.get(i);
        row.and_then(|row| row.get(j)).copied().unwrap_or_default()
    };
    let (mut i, mut j) = (0, 0);
    let mut found = Vec::new();
    loop {
        match (most.get(i), this.get(j)) {
            (Some(one), Some(other)) if one == other => (i, j) = (i + 1, j + 1),
            (Some(one), other) if other.is_none() || at(i + 1, j) >= at(i, j + 1) => {
                found.push(('-', *one));
                i += 1;
            }
            (_, Some(other)) => {
                found.push(('+', *other));
                j += 1;
            }
            (_, None) => return found,
        }
    }
}

/// How long the longest common subsequence is of what begins at each pair of lines.
fn common(most: &[&str], this: &[&str]) -> Vec<Vec<u16>> {
    let mut rows = vec![vec![0_u16; this.len() + 1]];
    for one in most.iter().rev() {
        let mut row = vec![0_u16; this.len() + 1];
        if let Some(below) = rows.last() {
            for (j, other) in this.iter().enumerate().rev() {
                let get = |row: &[u16], at: usize| row.get(at).copied().unwrap_or_default();
                let length = if one == other {
                    get(below, j + 1) + 1
                } else {
                    get(below, j).max(get(&row, j + 1))
                };
                if let Some(cell) = row.get_mut(j) {
                    *cell = length;
                }
            }
        }
        rows.push(row);
    }
    rows.reverse();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_shown() {
        let (most, this) = (b"a\nb\nc\nd\n", b"a\nx\nc\nd\ne\n");
        assert_eq!(lines(most, this), ["- b", "+ x", "+ e"]);
        assert_eq!(lines(most, most), [""; 0]);
        assert_eq!(lines(b"", b"a\n"), ["+ a"]);
        assert_eq!(lines(b"a\n", b""), ["- a"]);
    }

    #[test]
    fn much_is_counted_and_what_is_no_text_or_too_long_is_not_compared() {
        let many: String = (0..20).map(|number| format!("{number}\n")).collect();
        let shown = lines(b"", many.as_bytes());
        assert_eq!(shown.len(), MAX_SHOWN + 1);
        assert_eq!(shown.last().unwrap(), "and 12 more lines");
        assert_eq!(lines(&[0xff], b"a"), [""; 0]);
        let long = "x\n".repeat(MAX_LINES + 1);
        assert_eq!(lines(long.as_bytes(), b"a"), [""; 0]);
    }

    #[test]
    fn a_hosts_output_reaches_the_screen_escaped() {
        assert!(!lines(b"", b"\x1b]0;owned\x07")[0].contains('\x1b'));
    }
}
