//! The seven rules that make leases exact, as switches that only tests can open.
//!
//! In the shipped build every rule is on and there is no way to say otherwise. Tests switch one off and show, by a
//! directed schedule, that the limit then breaks: so each rule is known to carry weight.

/// Which of the seven rules are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// (a) Units that are leased but not spent still occupy the bucket.
    pub(crate) leased_units_occupy: bool,
    /// (b) The holder looks at its own boot clock at every admission.
    pub(crate) holder_checks_expiry: bool,
    /// (c) A lease runs from the sending of the contact that renewed it.
    pub(crate) lease_runs_from_sending: bool,
    /// (d) Rate units of an expired lease are burned, and a late return is ignored.
    pub(crate) expired_units_burn: bool,
    /// (e) Refill runs on ledger time, not on the leader's own clock.
    pub(crate) refill_uses_ledger_time: bool,
    /// (f) A refund is at most the smallest headroom since its reservation.
    pub(crate) refund_within_headroom: bool,
    /// (g) The boot clock is read again right before the request head is written.
    pub(crate) send_checked_again: bool,
}

impl Rules {
    /// Every rule in force.
    pub const ALL: Self = Self {
        leased_units_occupy: true,
        holder_checks_expiry: true,
        lease_runs_from_sending: true,
        expired_units_burn: true,
        refill_uses_ledger_time: true,
        refund_within_headroom: true,
        send_checked_again: true,
    };

    /// Every rule but one, named by its letter.
    ///
    /// # Panics
    /// When the letter names no rule.
    #[cfg(any(test, tokligence_faults))]
    pub fn without(letter: char) -> Self {
        let mut rules = Self::ALL;
        let rule = match letter {
            'a' => &mut rules.leased_units_occupy,
            'b' => &mut rules.holder_checks_expiry,
            'c' => &mut rules.lease_runs_from_sending,
            'd' => &mut rules.expired_units_burn,
            'e' => &mut rules.refill_uses_ledger_time,
            'f' => &mut rules.refund_within_headroom,
            'g' => &mut rules.send_checked_again,
            other => panic!("no rule ({other})"),
        };
        *rule = false;
        rules
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::ALL
    }
}
