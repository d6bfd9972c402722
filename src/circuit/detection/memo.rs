use super::super::{
    detect::{habit::Habits, lane::Route},
    inspect::{Inspection, Text, route_at},
};

/// What the request at hand asked for last: the same again and again, mostly. Begins anew with each,
/// since places in one say nothing in another.
#[derive(Debug, Default)]
pub(in crate::circuit) struct Memo {
    /// Texts, where in them the part ends that tells routes apart, and the route.
    routes: [Option<(Text, usize, Route)>; 4],
    operations: [Option<(u32, Text, Option<u32>)>; 2],
}

impl Memo {
    /// What a call asks for.
    #[inline]
    pub(in crate::circuit) fn route(&mut self, request: &[u8], text: Text) -> Route {
        let url = route_at(request, text);
        let known = self.routes.iter().flatten().find(|(other, end, _)| Route::is_same(url, route_at(request, *other), *end));
        if let Some((.., route)) = known {
            return *route;
        }
        let (route, end) = Route::read(url);
        self.routes.rotate_right(1);
        self.routes[0] = Some((text, end, route));
        route
    }

    /// The number of an operation of a caller.
    #[inline]
    pub(in crate::circuit) fn operation(
        &mut self,
        (caller, text): (u32, Text),
        request: &[u8],
        inspection: &Inspection,
        habits: &mut Habits,
    ) -> Option<u32> {
        let name = inspection.text(request, text);
        let is = |other: &&(u32, Text, Option<u32>)| other.0 == caller && other.1.has_length_of(text) && inspection.text(request, other.1) == name;
        if let Some((.., operation)) = self.operations.iter().flatten().find(is) {
            return *operation;
        }
        let operation = habits.operation(name);
        self.operations = [Some((caller, text, operation)), self.operations[0]];
        operation
    }
}
