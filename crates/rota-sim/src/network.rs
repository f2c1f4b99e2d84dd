//! The network between the servers: every message may be late, lost, doubled, overtaken, or meet a
//! cut link.
//!
//! ```text
//!   send(from, to) ──► link cut? lost? ──► 1 or 2 arrivals, each after its own delay
//! ```

use std::collections::BTreeMap;

use crate::random::Random;
use crate::{Counters, Fault, Micros};

/// How bad the network is at the moment; the rates are per thousand messages.
#[derive(Clone, Debug)]
pub struct Weather {
    /// The least time a message takes.
    pub delay_min: Micros,
    /// The most, unless it is held up.
    pub delay_max: Micros,
    /// Lost.
    pub loss: u64,
    /// Arrives twice.
    pub duplicate: u64,
    /// Held up for [`Weather::hold_max`] at most, so that later ones overtake it.
    pub hold: u64,
    /// How long a message is held up at most.
    pub hold_max: Micros,
}

impl Weather {
    /// One machine room: nothing is lost.
    pub fn calm() -> Self {
        Self { delay_min: 100, delay_max: 900, loss: 0, duplicate: 0, hold: 0, hold_max: 0 }
    }
}

/// The links between all servers.
pub struct Network {
    /// What happens to messages on links that are not cut.
    pub weather: Weather,
    cut: Vec<Vec<bool>>,
    /// Until when two servers keep each other out.
    barred: BTreeMap<(usize, usize), Micros>,
    random: Random,
}

impl Network {
    /// All links between so many servers, none cut.
    pub fn new(servers: usize, weather: Weather, random: Random) -> Self {
        let cut = vec![vec![false; servers]; servers];
        Self { weather, cut, barred: BTreeMap::new(), random }
    }

    /// How long until each copy of a message that is sent at `now` arrives; none if it is lost.
    pub fn arrivals(
        &mut self,
        now: Micros,
        from: usize,
        to: usize,
        met: &mut Counters,
    ) -> Vec<Micros> {
        if self.is_barred(now, from, to) {
            met.count(Fault::KeptOut);
            return Vec::new();
        }
        if self.cut[from][to] {
            met.count(Fault::Cut);
            return Vec::new();
        }
        if self.random.per_mille(self.weather.loss) {
            met.count(Fault::Loss);
            return Vec::new();
        }
        let twice = self.random.per_mille(self.weather.duplicate);
        if twice {
            met.count(Fault::Duplicate);
        }
        (0..=u8::from(twice)).map(|_| self.delay(met)).collect()
    }

    /// Cuts both directions between every server of the one side and every server of the other.
    pub fn partition(&mut self, side: &[bool]) {
        for from in 0..self.cut.len() {
            for to in 0..self.cut.len() {
                self.cut[from][to] |= side[from] != side[to];
            }
        }
    }

    /// Cuts one direction between two servers.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.cut[from][to] = true;
    }

    /// Two servers hear nothing of each other until then, whatever is mended meanwhile.
    pub fn bar(&mut self, one: usize, other: usize, until: Micros) {
        let until_now = self.barred.entry((one.min(other), one.max(other))).or_default();
        *until_now = until.max(*until_now);
    }

    /// Whether one of two servers keeps the other out.
    pub fn is_barred(&self, now: Micros, one: usize, other: usize) -> bool {
        let until = self.barred.get(&(one.min(other), one.max(other)));
        until.is_some_and(|&until| now < until)
    }

    /// Mends all links; returns the pairs between which something was cut, each once.
    pub fn heal(&mut self) -> Vec<(usize, usize)> {
        let servers = self.cut.len();
        let mut mended = Vec::new();
        for one in 0..servers {
            for other in one + 1..servers {
                if self.cut[one][other] || self.cut[other][one] {
                    mended.push((one, other));
                }
            }
        }
        self.cut = vec![vec![false; servers]; servers];
        mended
    }

    /// Whether anything passes between two servers in both directions.
    pub fn is_open(&self, one: usize, other: usize) -> bool {
        !self.cut[one][other] && !self.cut[other][one]
    }

    fn delay(&mut self, met: &mut Counters) -> Micros {
        let delay = self.random.between(self.weather.delay_min, self.weather.delay_max);
        if self.random.per_mille(self.weather.hold) {
            met.count(Fault::Hold);
            return delay + self.random.below(self.weather.hold_max);
        }
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_lets_nothing_through_until_it_is_healed() {
        let mut network = Network::new(4, Weather::calm(), Random::new(1));
        let met = &mut Counters::default();
        network.partition(&[true, true, false, false]);
        assert!(network.arrivals(0, 0, 2, met).is_empty());
        assert!(network.arrivals(0, 2, 0, met).is_empty());
        assert_eq!(network.arrivals(0, 0, 1, met).len(), 1);
        assert_eq!(network.heal(), [(0, 2), (0, 3), (1, 2), (1, 3)]);
        assert_eq!(network.arrivals(0, 0, 2, met).len(), 1);
    }

    #[test]
    fn who_is_kept_out_is_back_when_the_time_is_over() {
        let mut network = Network::new(2, Weather::calm(), Random::new(1));
        let met = &mut Counters::default();
        network.bar(1, 0, 10);
        network.heal();
        assert!(network.arrivals(9, 0, 1, met).is_empty());
        assert!(network.arrivals(9, 1, 0, met).is_empty());
        assert_eq!(network.arrivals(10, 0, 1, met).len(), 1);
    }

    #[test]
    fn a_one_way_cut_leaves_the_other_direction() {
        let mut network = Network::new(2, Weather::calm(), Random::new(1));
        let met = &mut Counters::default();
        network.cut_one_way(0, 1);
        assert!(network.arrivals(0, 0, 1, met).is_empty());
        assert_eq!(network.arrivals(0, 1, 0, met).len(), 1);
    }
}
