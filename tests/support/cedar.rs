//! Policies in Cedar, as tests need them. Every suite takes this file in.

use countersign_protocol::policy::Policy;

/// So many of `approvers` allow what one of `requesters` asks for, and nobody else asks.
pub(crate) fn names(approvals: u32, requesters: &[&str], approvers: &[&str]) -> Policy {
    let listed = |names: &[&str], each: &dyn Fn(&str) -> String, between: &str| {
        let each: Vec<String> = names.iter().map(|name| each(name)).collect();
        each.join(between)
    };
    let from = listed(approvers, &|name| format!("user:{name}"), ", ");
    let who = listed(
        requesters,
        &|name| format!("principal == User::\"{name}\""),
        " || ",
    );
    let text = format!(
        "@id(\"names\")\n@approvals(\"{approvals}\")\n@from(\"{from}\")\n\
         permit (principal, action == Action::\"command:execute\", resource)\nwhen {{ {who} }};\n"
    );
    Policy::new(text).unwrap()
}
