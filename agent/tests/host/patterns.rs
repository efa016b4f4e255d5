//! Patterns against a matcher written another way: expand all braces, then try every split.

use countersign_agent::rules::{MAX_ALTERNATIVES, MAX_PATTERN_CHARS, Pattern, PatternError};
use proptest::prelude::*;

/// Every text without braces that a pattern stands for. Recursive, on the text itself.
fn expand(text: &str) -> Vec<String> {
    let Some((before, rest)) = text.split_once('{') else {
        return vec![text.to_owned()];
    };
    let (choices, after) = rest.split_once('}').unwrap();
    choices
        .split(',')
        .flat_map(|choice| {
            expand(after)
                .into_iter()
                .map(move |tail| format!("{before}{choice}{tail}"))
        })
        .collect()
}

/// Whether a text without braces matches: a `*` is tried at every length.
fn naive(pattern: &[char], text: &[char], broad: bool) -> bool {
    let is_wild = |c: char| broad || (c != '/' && !c.is_control());
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len())
            .take_while(|cut| text[..*cut].iter().all(|c| is_wild(*c)))
            .any(|cut| naive(rest, &text[cut..], broad)),
        ['?', rest @ ..] => match text {
            [first, tail @ ..] => is_wild(*first) && naive(rest, tail, broad),
            [] => false,
        },
        [literal, rest @ ..] => match text {
            [first, tail @ ..] => first == literal && naive(rest, tail, broad),
            [] => false,
        },
    }
}

fn naively(pattern: &str, text: &str, broad: bool) -> bool {
    let chars: Vec<char> = text.chars().collect();
    expand(pattern).iter().any(|one| {
        let wild = one.contains(['*', '?']);
        let option = text.starts_with('-') && !one.starts_with('-');
        let climbs = wild
            && (text == ".."
                || text.starts_with("../")
                || text.ends_with("/..")
                || text.contains("/../"));
        let pattern: Vec<char> = one.chars().collect();
        (broad || !(option || climbs)) && naive(&pattern, &chars, broad)
    })
}

/// A small alphabet, so that matches are common.
fn pattern_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ab./-]",
        2 => Just("*".to_owned()),
        1 => Just("?".to_owned()),
        1 => "\\{[ab*]?,[ab.?-]{0,2}\\}",
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_pattern_matches_what_a_naive_matcher_says(
        pattern in pattern_text(),
        text in "[ab./\n-]{0,6}",
    ) {
        match Pattern::parse(&pattern) {
            Ok(parsed) => {
                prop_assert_eq!(parsed.allows(&text), naively(&pattern, &text, false));
                prop_assert_eq!(parsed.forbids(&text), naively(&pattern, &text, true));
            }
            Err(error) => {
                prop_assert_eq!(error, PatternError::Rest);
                prop_assert!(expand(&pattern).iter().any(|one| one.contains("**")));
            }
        }
    }

    #[test]
    fn what_is_allowed_is_also_forbidden_by_the_same_pattern(
        pattern in pattern_text(),
        text in "[ab./\n-]{0,6}",
    ) {
        if let Ok(parsed) = Pattern::parse(&pattern) {
            prop_assert!(!parsed.allows(&text) || parsed.forbids(&text));
        }
    }

    #[test]
    fn an_escaped_text_matches_itself_alone(text in "[ -~]{0,12}", other in "[ -~]{0,12}") {
        let escaped: String = text
            .chars()
            .flat_map(|c| "*?{}\\".contains(c).then_some('\\').into_iter().chain([c]))
            .collect();
        let parsed = Pattern::parse(&escaped).unwrap();
        prop_assert!(parsed.allows(&text));
        prop_assert_eq!(parsed.allows(&other), text == other);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,40}", argument in "\\PC{0,40}") {
        if let Ok(parsed) = Pattern::parse(&text) {
            let _either = parsed.allows(&argument) || parsed.forbids(&argument);
        }
    }
}

#[test]
fn a_pattern_is_the_whole_text() {
    let allows = |pattern: &str, text: &str| Pattern::parse(pattern).unwrap().allows(text);
    assert!(allows("*.service", "nginx.service"));
    assert!(allows("nginx{,.service}", "nginx"));
    assert!(allows("nginx{,.service}", "nginx.service"));
    assert!(!allows("nginx{,.service}", "nginx.socket"));
    assert!(!allows("nginx", "nginx\n"));
    assert!(!allows("*", "nginx\n"));
    assert!(!allows("*", "--force"));
    assert!(!allows("?-force", "--force"));
    assert!(allows("-*", "--force"));
    assert!(allows("{restart,--force}", "--force"));
    assert!(!allows("*/x", "../x"));
    assert!(allows("../x", "../x"));
    assert!(!allows("/var/log/*", "/var/log/a/b"));
    assert!(allows("", ""));
    assert!(!allows("", "a"));
}

#[test]
fn a_mistake_in_a_pattern_is_told() {
    let error = |text: &str| Pattern::parse(text).unwrap_err();
    assert_eq!(error("a**"), PatternError::Rest);
    assert_eq!(error("{*,a}*"), PatternError::Rest);
    assert_eq!(error("{*,a}?{*,}*"), PatternError::Rest);
    for braces in ["{", "}", "{a", "a}", "{a}", "{}", "{a,{b,c}}"] {
        assert_eq!(error(braces), PatternError::Braces, "{braces}");
    }
    for escape in ["\\", "\\n", "a\\.b"] {
        assert_eq!(error(escape), PatternError::Escape, "{escape}");
    }
    assert_eq!(error("a\n"), PatternError::Control);
    assert_eq!(
        error(&"a".repeat(MAX_PATTERN_CHARS + 1)),
        PatternError::Long
    );
    let doubled = "{a,b}".repeat(MAX_ALTERNATIVES.ilog2() as usize);
    assert!(Pattern::parse(&doubled).is_ok());
    assert_eq!(
        error(&format!("{doubled}{{a,b}}")),
        PatternError::Alternatives
    );
}

#[test]
fn a_long_argument_takes_no_long_time() {
    let pattern = Pattern::parse(&"*a".repeat(40)).unwrap();
    let begun = std::time::Instant::now();
    assert!(!pattern.allows(&format!("{}b", "a".repeat(20_000))));
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
}
