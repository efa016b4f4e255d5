//! `allowed_signers`, read strictly: whatever could mean more than it says is refused. ATTACKS 15b, 26.

use countersign_agent::signers::{AllowedSigners, MAX_LINES, NotPinned, Problem};
use countersign_protocol::event::Kind;
use countersign_protocol::key::PublicKey;

use crate::support::{at, public};

fn key(name: &str) -> String {
    public(name).to_openssh()
}

fn problem(text: &str) -> (usize, Problem) {
    let error = AllowedSigners::parse(text).unwrap_err();
    (error.line, error.problem)
}

#[test]
fn people_keys_comments_and_blank_lines_are_read() {
    let text = format!(
        "# who counts\n\nalice@example.com {} alice's laptop\n\tbob  namespaces=\"git,command.approved.v1@countersign\",valid-after=\"20260101Z\" {}\nbob {}\n",
        key("alice"),
        key("bob"),
        key("bob2")
    );
    let signers = AllowedSigners::parse(&text).unwrap();
    let names: Vec<String> = signers.people().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["alice@example.com", "bob"]);
    assert_eq!(signers.owner_of(&public("bob2")).unwrap().as_str(), "bob");
    assert_eq!(signers.owner_of(&public("carol")), None);
}

#[test]
fn patterns_lists_and_authorities_are_refused_with_their_line() {
    let good = format!("alice {}\n", key("alice"));
    let bob = key("bob");
    for (line, wanted) in [
        (format!("* {bob}"), Problem::Pattern),
        (format!("*@example.com {bob}"), Problem::Pattern),
        (format!("bo? {bob}"), Problem::Pattern),
        (format!("!bob {bob}"), Problem::Pattern),
        (format!("bob,carol {bob}"), Problem::PrincipalList),
        (format!("\"bob\" {bob}"), Problem::PrincipalList),
        (format!("b\u{f6}b {bob}"), Problem::Principal),
        (format!("bob cert-authority {bob}"), Problem::CertAuthority),
        (format!("bob CERT-authority {bob}"), Problem::CertAuthority),
        (
            format!("bob namespaces=\"git\",cert-authority {bob}"),
            Problem::CertAuthority,
        ),
        (format!("bob namespaces=\"*\" {bob}"), Problem::Namespaces),
        (
            format!("bob namespaces=\"a,!b\" {bob}"),
            Problem::Namespaces,
        ),
        (format!("bob namespaces=\"\" {bob}"), Problem::Namespaces),
        (format!("bob valid-after=\"20260101\" {bob}"), Problem::Date),
        (
            format!("bob valid-after=\"20260230Z\" {bob}"),
            Problem::Date,
        ),
        (
            format!("bob valid-after=\"20270101Z\",valid-before=\"20270101Z\" {bob}"),
            Problem::NeverValid,
        ),
        (
            format!("bob verify-required {bob}"),
            Problem::Option("verify-required".into()),
        ),
        (
            format!("bob namespaces=\"a\",namespaces=\"b\" {bob}"),
            Problem::Option("namespaces".into()),
        ),
        ("bob".into(), Problem::Shape),
        (format!("bob2 {}", key("alice")), Problem::DuplicateKey(1)),
        (format!("alice {}", key("alice")), Problem::DuplicateKey(1)),
    ] {
        assert_eq!(problem(&format!("{good}{line}\n")), (2, wanted), "{line}");
    }
}

#[test]
fn keys_that_prove_nothing_are_refused() {
    for line in [
        "bob ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ==",
        "bob ecdsa-sha2-nistp256 AAAA",
        "bob ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "bob ssh-ed25519",
        "bob ssh-ed25519 !!!!",
    ] {
        assert!(matches!(problem(line), (1, Problem::Key(_))), "{line}");
    }
}

#[test]
fn a_file_that_names_nobody_is_refused() {
    for text in ["", "\n\n", "# alice\n", " \t\n#\n"] {
        assert_eq!(problem(text).1, Problem::Empty, "{text:?}");
    }
    assert_eq!(problem(&"\n".repeat(MAX_LINES + 1)).1, Problem::TooLong);
}

#[test]
fn dates_are_those_of_the_calendar_in_utc() {
    // Seconds since 1970 by `date -u -d … +%s`.
    for (text, seconds) in [
        ("20000101Z", 946_684_800),
        ("20240229Z", 1_709_164_800),
        ("20261121Z", 1_795_219_200),
        ("202803011230Z", 1_835_526_600),
        ("20991231235959Z", 4_102_444_799),
    ] {
        let text = format!("bob valid-after=\"{text}\" {}", key("bob"));
        let signers = AllowedSigners::parse(&text).unwrap();
        let check = |us| {
            let bob = "bob".parse().unwrap();
            signers.check(&public("bob"), &bob, Kind::CommandApproved, at(us))
        };
        let from = seconds * 1_000_000;
        assert_eq!(check(from - 1), Err(NotPinned::Date), "{text}");
        assert_eq!(check(from), Ok(()), "{text}");
    }
}

#[test]
fn a_key_speaks_for_its_own_person_only() {
    let text = format!("alice {}\nbob {}\n", key("alice"), key("bob"));
    let signers = AllowedSigners::parse(&text).unwrap();
    let check = |key: &PublicKey, who: &str| {
        signers.check(key, &who.parse().unwrap(), Kind::CommandApproved, at(1))
    };
    assert_eq!(check(&public("alice"), "alice"), Ok(()));
    assert_eq!(
        check(&public("alice"), "bob"),
        Err(NotPinned::OtherPrincipal)
    );
    assert_eq!(check(&public("eve"), "bob"), Err(NotPinned::UnknownKey));
}
