//! What the programs cost the verifier: each is loaded at every start, and kernels differ in what they can prove.

use crate::common::runner::Node;
use crate::lab::CONFIG;

/// The kernel's limit is a million (BPF_COMPLEXITY_LIMIT_INSNS). The hooks of uplinks need most: the established path, the
/// choice of who is meant, and neighbour discovery.
const BUDGET: u32 = 60_000;

#[test]
fn every_program_is_far_below_the_verifiers_limit() {
    let costs: Vec<(String, u32)> = Node::new(CONFIG)
        .programs()
        .into_iter()
        .map(|program| (program.name, program.verified_instructions))
        .collect();
    assert!(!costs.is_empty(), "the programs are pinned");
    assert!(
        costs.iter().all(|(_, cost)| (1..BUDGET).contains(cost)),
        "the budget is {BUDGET} instructions: {costs:#?}"
    );
}
