//! A sealed secret opens on the host, in the request and under the name that it was sealed for, after
//! the host has said yes to everything else.

use countersign_agent::admission::{Permit, Unproven, Verdict};
use countersign_agent::execution::Secrets;
use countersign_agent::rules::LocalRefusal;
use countersign_protocol::command::Act;
use countersign_protocol::event::{CommandRequested, Event, RefusalReason};
use countersign_protocol::hash::{Digest, KeyId, LedgerId, StatementId};
use countersign_protocol::name::Nonce;
use countersign_protocol::secret::{
    Binding, Delivery, SealedSecret, SealedSecrets, SecretError, SecretName, commitment,
    token_nonce,
};
use countersign_sealing::{SealingSecret, seal};
use zeroize::Zeroizing;

use crate::consent::{by_token, with_token};
use crate::support::{Book, World, public};

const VALUE: &[u8] = b"correct horse battery staple";
const SALT: [u8; 32] = [7; 32];

fn own_key() -> SealingSecret {
    SealingSecret::new(Zeroizing::new([9; 32]))
}

/// A secret of somebody's request, as an honest client makes it, or changed.
struct Sealing {
    binding: Binding,
    name: SecretName,
    boxed_as: SecretName,
    key_id: KeyId,
    delivery: Delivery,
    committed: Vec<u8>,
}

impl Sealing {
    fn seal(self) -> SealedSecrets {
        let to = own_key().public().unwrap();
        let drawn = Zeroizing::new([8; 32]);
        let place = (&self.binding, &self.boxed_as);
        let mut sealed = seal((&SALT, VALUE), place, &to, drawn).unwrap();
        sealed.key_id = self.key_id;
        let secret = SealedSecret {
            boxes: vec![sealed],
            delivery: self.delivery,
            digest: commitment(&SALT, &self.committed),
            name: self.name,
        };
        SealedSecrets::new(vec![secret]).unwrap()
    }
}

/// Alice asks for `true` with a secret, changed on its way into the document; bob and carol approve.
fn asked(world: &mut World, change: impl FnOnce(&mut Sealing)) -> StatementId {
    let act = world.act();
    asked_with(world, act, change)
}

fn asked_with(world: &mut World, act: Act, change: impl FnOnce(&mut Sealing)) -> StatementId {
    let Event::CommandRequested(mut request) = world.book.request_event("alice", act) else {
        panic!("no request");
    };
    hand_over(world, &mut request, change);
    approved(world, "alice", request)
}

/// Puts a secret into a request that is complete but for that.
fn hand_over(world: &mut World, request: &mut CommandRequested, change: impl FnOnce(&mut Sealing)) {
    let name: SecretName = "TOKEN".parse().unwrap();
    let mut sealing = Sealing {
        binding: Binding {
            ledger: request.ledger,
            agent: public("web-1").key_id(),
            requester: request.signer,
            nonce: request.nonce,
        },
        name: name.clone(),
        boxed_as: name,
        key_id: public("web-1").key_id(),
        delivery: Delivery::File,
        committed: VALUE.to_vec(),
    };
    change(&mut sealing);
    let document = sealing.seal().to_document().unwrap();
    request.act.secrets = Some(world.book.blob(&document));
}

fn approved(world: &mut World, signed_by: &str, request: CommandRequested) -> StatementId {
    let id = world
        .book
        .sign_and_append(signed_by, &Event::from(request))
        .unwrap();
    world.book.approve("bob", id).unwrap();
    world.book.approve("carol", id).unwrap();
    id
}

fn permit(world: &World, id: StatementId) -> Permit {
    match world.admit(&world.grant(id)) {
        Ok(Verdict::Run(permit)) => *permit,
        other => panic!("not permitted: {other:?}"),
    }
}

fn opened(world: &World, id: StatementId) -> Result<Secrets, LocalRefusal> {
    permit(world, id).open_secrets(Some(&own_key()))
}

#[test]
fn an_honest_secret_opens_after_the_host_has_said_yes() {
    let mut world = World::new();
    let id = asked(&mut world, |_| {});
    let secrets = opened(&world, id).unwrap();
    assert!(secrets.has_files());
    assert_eq!(format!("{secrets:?}"), "1 secrets");
}

#[test]
fn a_secret_that_was_moved_is_refused_and_the_run_with_it() {
    type Move = fn(&mut Sealing);
    let moves: [(&str, Move); 5] = [
        ("ledger", |s| s.binding.ledger = LedgerId::new([0; 32])),
        ("agent", |s| s.binding.agent = public("web-2").key_id()),
        ("requester", |s| {
            s.binding.requester = public("dave").key_id()
        }),
        ("request", |s| s.binding.nonce = Nonce::new([0xee; 16])),
        ("name", |s| s.boxed_as = "OTHER".parse().unwrap()),
    ];
    for (what, change) in moves {
        let mut world = World::new();
        let id = asked(&mut world, change);
        let refusal = opened(&world, id).unwrap_err();
        assert_eq!(refusal.rule.unwrap().as_str(), "secrets", "{what}");
        assert_eq!(refusal.why, RefusalReason::Unusable);
        assert!(refusal.detail.contains("TOKEN does not open"), "{what}");
    }
}

/// The gateway's key signs for every token: with a nonce of its choice it could take anybody's box
/// into another request.
#[test]
fn the_gateways_secrets_are_bound_to_the_callers_own_id() {
    let (own, other) = (Digest::new([6; 32]), Digest::new([7; 32]));
    for (client_ref, sealed_for, opens) in [
        (Some(own), own, true),
        (Some(other), own, false),
        (None, own, false),
    ] {
        let mut world = with_token("ci");
        let act = world.act();
        let request = by_token(&mut world, "ci", "gateway", act);
        let Event::CommandRequested(mut request) = request else {
            panic!("no request");
        };
        request.client_ref = client_ref;
        request.nonce = token_nonce(&sealed_for);
        hand_over(&mut world, &mut request, |_| {});
        let id = approved(&mut world, "gateway", request);
        if opens {
            assert!(opened(&world, id).unwrap().has_files());
        } else {
            let why = world.unproven(id);
            assert!(
                matches!(why, Unproven::Secrets(SecretError::Nonce)),
                "{why}"
            );
        }
    }
}

#[test]
fn a_value_that_people_did_not_sign_for_is_refused() {
    let mut world = World::new();
    let id = asked(&mut world, |sealing| {
        sealing.committed = b"something else".to_vec()
    });
    let refusal = opened(&world, id).unwrap_err();
    assert!(refusal.detail.contains("whose digest was signed"));
}

#[test]
fn a_host_without_a_sealing_key_or_with_another_opens_nothing() {
    let mut world = World::new();
    let id = asked(&mut world, |_| {});
    let permit = permit(&world, id);
    let other = SealingSecret::new(Zeroizing::new([10; 32]));
    assert!(permit.open_secrets(Some(&other)).is_err());
    let refusal = permit.open_secrets(None).unwrap_err();
    assert!(refusal.detail.contains("rotate its key"));
}

#[test]
fn a_secret_that_is_not_sealed_to_this_host_is_refused() {
    let mut world = World::new();
    let id = asked(&mut world, |s| s.key_id = public("web-2").key_id());
    assert_eq!(world.refused(id).rule.unwrap().as_str(), "secrets");
}

#[test]
fn the_host_says_whether_it_takes_secrets_at_all() {
    let mut world = World::new();
    let id = asked(&mut world, |_| {});
    world.host.rules.secrets = false;
    let refusal = world.refused(id);
    assert_eq!(refusal.rule.unwrap().as_str(), "secrets");
    assert_eq!(refusal.why, RefusalReason::NotAllowed);
}

/// A secret gets past no rule that a variable would not get past.
#[test]
fn a_secret_variable_is_judged_as_a_variable() {
    for (name, rule) in [
        ("TOKEN", Some("environment")),
        ("LD_PRELOAD", Some("environment_dangerous")),
        ("TERM", Some("secrets")),
        ("LC_ALL", Some("secrets")),
    ] {
        let mut world = World::new();
        for allowed in ["TERM", "LC_*"] {
            let allowed = countersign_agent::rules::NamePattern::parse(allowed).unwrap();
            world.host.rules.environment.push(allowed);
        }
        let id = asked(&mut world, |sealing| {
            sealing.delivery = Delivery::Env;
            sealing.name = name.parse().unwrap();
            sealing.boxed_as = name.parse().unwrap();
        });
        let said = world.refused(id).rule;
        assert_eq!(said.as_ref().map(|rule| rule.as_str()), rule, "{name}");
    }
}

#[test]
fn an_allowed_secret_variable_reaches_the_run_by_the_secret_alone() {
    let mut world = World::new();
    let token = countersign_agent::rules::NamePattern::parse("TOKEN").unwrap();
    world.host.rules.environment.push(token);
    let id = asked(&mut world, |sealing| sealing.delivery = Delivery::Env);
    let permit = permit(&world, id);
    assert!(permit.open_secrets(Some(&own_key())).is_ok());
    let plan = permit.into_plan(std::time::Duration::ZERO).unwrap();
    assert_eq!(plan.env, []);
}

#[test]
fn a_document_that_is_another_than_was_signed_is_not_believed() {
    let mut world = World::new();
    let id = asked(&mut world, |_| {});
    let mut grant = world.grant(id);
    let before = grant.stream.blobs.len();
    let spec = Book::spec(&["true"]).to_document().unwrap();
    grant.stream.blobs.retain(|blob| {
        let content = blob.clone().into_blob().unwrap();
        content.content() == spec || !content.content().starts_with(b"[{\"boxes\"")
    });
    assert_eq!(grant.stream.blobs.len(), before - 1);
    let unproven = world.admit(&grant).unwrap_err();
    assert!(
        unproven.to_string().contains("sealed secrets"),
        "{unproven}"
    );
}
