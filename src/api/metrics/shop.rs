//! Families about what tenants are told of the shop.

use crate::base::metrics::Exposition;
use crate::pool::ShopFigures;

pub(super) fn show(exposition: &mut Exposition, figures: &ShopFigures) {
    let updates = exposition.counter(
        "mesophyll_shop_updates_total",
        "Updates of the shop for tenants that watch it, by what came of them.",
    );
    figures.outcomes.show(updates);
    exposition.one_gauge(
        "mesophyll_shop_watchers",
        "Tenants that watch something of the shop.",
        Some(figures.watchers),
    );
    exposition.one_gauge(
        "mesophyll_shop_pending",
        "Updates of the shop that wait for their turn, or for their worker.",
        Some(figures.pending),
    );
    exposition.one_gauge(
        "mesophyll_shop_lag_seconds",
        "For how long a change of the shop may have been made that was not seen.",
        Some(figures.lag_seconds),
    );
}
