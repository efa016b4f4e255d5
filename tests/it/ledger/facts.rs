//! What a host says of itself stands in the stream of rights and on the host's own chain, among other words.

use crate::ledger::append::audit_database;
use crate::support::TestServer;

#[tokio::test]
async fn a_server_that_starts_anew_goes_on_where_the_hosts_chain_ends() {
    let server = TestServer::start().await;
    let book = &server.book;
    book.say_facts("r-1").await;
    let (first, _) = book.authorized().await;
    book.run(first).await;
    let (second, _) = book.authorized().await;
    // Of the chain the rights show its first word only; three stand on it.
    let anew = book.reopen().await.unwrap();
    let started = anew.append(book.start(second)).await.unwrap().id;
    book.finish(second, started).await;
    let auditor = audit_database(&book.database.app).await;
    let record = auditor
        .state()
        .rights()
        .agent_record(&"web-1".parse().unwrap());
    let said = record.unwrap().facts.as_ref().unwrap();
    let rack = said.facts.as_ref().unwrap().get(&"rack".parse().unwrap());
    assert_eq!(rack.unwrap().as_str(), "r-1");
    assert_eq!(auditor.not_rejudged(), 0);
}
