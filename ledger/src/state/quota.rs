//! A quota within its windows: the present one, and the one before it, which stays open for settling.
//!
//! Invariant L4: used + pending never exceeds the quota at an admission, overruns aside.

use crate::entry::Effect;
use crate::model::{QuotaKind, QuotaLimit, Scope, Spend, Windows};
use serde::{Deserialize, Serialize};

/// Levels of use that somebody is told of, in percent.
const LEVELS: [u8; 3] = [80, 90, 100];

/// One quota of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Quota {
    pub(crate) kind: QuotaKind,
    pub(crate) now: Window,
    pub(crate) last: Window,
    /// The highest level that was told of in the present window.
    told: u8,
}

/// A quota's use within one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) index: u64,
    pub(crate) used: u64,
    pub(crate) pending: u64,
}

/// Which quotas a reservation holds of, and of which windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldQuotas {
    kinds: u8,
    windows: Windows,
}

impl HeldQuotas {
    pub(crate) fn new(windows: Windows) -> Self {
        Self { kinds: 0, windows }
    }

    pub(crate) fn hold(&mut self, kind: QuotaKind) {
        self.kinds |= 1 << (kind as u8);
    }

    pub(crate) fn any(&self) -> bool {
        self.kinds != 0
    }

    /// The window that is held of a quota, if any is.
    pub(crate) fn window(&self, kind: QuotaKind) -> Option<u64> {
        (self.kinds & 1 << (kind as u8) != 0).then(|| self.windows.of(kind))
    }

    /// Whether any of it may yet be corrected.
    pub(crate) fn is_open(&self, now: Windows) -> bool {
        QuotaKind::ALL.into_iter().any(|kind| self.window(kind).is_some_and(|window| window + 1 >= now.of(kind)))
    }
}

impl Quota {
    pub(crate) fn new(kind: QuotaKind, windows: Windows) -> Self {
        let now = Window { index: windows.of(kind), ..Window::default() };
        Self { kind, now, last: Window::default(), told: 0 }
    }

    /// Goes on to the present window.
    pub(crate) fn roll(&mut self, windows: Windows) {
        let index = windows.of(self.kind);
        if index == self.now.index {
            return;
        }
        self.last = if self.now.index + 1 == index { self.now } else { Window::default() };
        self.now = Window { index, ..Window::default() };
        self.told = 0;
    }

    pub(crate) fn taken(&self) -> u64 {
        self.now.used.saturating_add(self.now.pending)
    }

    pub(crate) fn take(&mut self, units: u64) {
        self.now.pending = self.now.pending.saturating_add(units);
    }

    /// Ends a hold of `held` units of a window with what was used of them.
    pub(crate) fn settle(&mut self, index: u64, held: u64, used: u64) {
        let Some(window) = self.window(index) else { return };
        window.pending = window.pending.saturating_sub(held);
        window.used = window.used.saturating_add(used);
    }

    /// Lowers what a window was charged for a lost hold.
    pub(crate) fn correct(&mut self, index: u64, charged: u64, used: u64) {
        let Some(window) = self.window(index) else { return };
        window.used = window.used.saturating_sub(charged.saturating_sub(used));
    }

    pub(crate) fn adjust(&mut self, delta: i64) {
        self.now.used = self.now.used.saturating_add_signed(delta);
    }

    /// Tells of levels that the present window's use has newly reached.
    pub(crate) fn tell(&mut self, scope: Scope, limit: QuotaLimit, effects: &mut Vec<Effect>) {
        let percent = u128::from(self.now.used) * 100 / u128::from(limit.most.max(1));
        for level in LEVELS.into_iter().filter(|&level| level > self.told && percent >= u128::from(level)) {
            effects.push(Effect::QuotaReached {
                scope,
                kind: self.kind,
                window: self.now.index,
                percent: level,
                used: self.now.used,
                most: limit.most,
            });
        }
        self.told = LEVELS.into_iter().filter(|&level| percent >= u128::from(level)).fold(self.told, u8::max);
    }

    pub(crate) fn is_empty(&self) -> bool {
        [self.now, self.last].iter().all(|window| window.used == 0 && window.pending == 0)
    }

    fn window(&mut self, index: u64) -> Option<&mut Window> {
        [&mut self.now, &mut self.last].into_iter().find(|window| window.index == index)
    }
}

impl Spend {
    pub(crate) fn saturating_add(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            cost_nano_usd: self.cost_nano_usd.saturating_add(other.cost_nano_usd),
        }
    }

    pub(crate) fn saturating_sub(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            cost_nano_usd: self.cost_nano_usd.saturating_sub(other.cost_nano_usd),
        }
    }
}
