//! The group of users whose blocks are believed, as the environment names it.

use std::sync::Once;

use candleshm::feed::share_with;

static TAKEN: Once = Once::new();

/// Believes the blocks of the group in `CANDLESHM_GROUP`, as the other programs of candleshm do, from the first call on.
/// One that does not exist is not used: blocks of other users are then refused, which says so.
pub(crate) fn take() {
    TAKEN.call_once(|| {
        let group = std::env::var("CANDLESHM_GROUP").unwrap_or_default();
        let groups = || std::fs::read_to_string("/etc/group").unwrap_or_default();
        if let Some(gid) = group.parse().ok().or_else(|| gid_of(&group, &groups())) {
            share_with(Some(gid));
        }
    });
}

/// The number of a group in the text of `/etc/group`.
fn gid_of(name: &str, groups: &str) -> Option<u32> {
    groups.lines().find_map(|line| match line.split(':').collect::<Vec<_>>()[..] {
        [found, _, gid, ..] if found == name => gid.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_numbers() {
        let groups = "root:x:0:\ntraders:x:1007:ann,bob\n";
        assert_eq!(gid_of("traders", groups), Some(1007));
        assert_eq!(gid_of("nobody", groups), None);
        assert_eq!(gid_of("", groups), None);
    }
}
