//! A host that was drained takes no new work, and loses none of what it does afterwards.

use std::sync::atomic::Ordering;

use countersign_protocol::lifecycle::ExecutionStatus;
use countersign_protocol::rights::ChangeBody;

use crate::support::{Book, Tell};
use crate::whole::{Rig, approved};

fn agent() -> countersign_protocol::name::AgentName {
    "web-1".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_a_drained_host_is_refused_is_said_once_and_runs_nothing() {
    let mut rig = Rig::ready().await;
    let script = format!("echo ran >> {}", rig.file("ran").display());
    let id = {
        let mut book = rig.fake.book();
        let id = approved(&mut book, &["sh", "-c", &script]);
        book.change(ChangeBody::AgentDrained { agent: agent() });
        id
    };
    rig.fake.tell(Tell::Grant(id));
    let refused = || rig.fake.wire.refused.load(Ordering::SeqCst);
    rig.until("it is refused", |_: &Book| refused() == 1).await;
    // The server may send it again as often as it likes.
    for _ in 0..3 {
        rig.fake.tell(Tell::Grant(id));
    }
    rig.hung_up(2).await;
    rig.fake.tell(Tell::Grant(id));
    rig.fake
        .book()
        .change(ChangeBody::AgentUndrained { agent: agent() });
    // Its chain goes on where it was: the number of the refused word is free.
    let after = rig.granted("exit 0");
    let done = rig.ended(after).await;
    assert_eq!(done.status, ExecutionStatus::Completed);
    assert_eq!(refused(), 1, "it was said once");
    assert_eq!(rig.execution(id).status, ExecutionStatus::Waiting);
    assert!(!rig.file("ran").exists());
    rig.stop().await.unwrap();
}
