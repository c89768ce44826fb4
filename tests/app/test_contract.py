"""Whatever is sent, the service answers as its description says, and does not fail."""

from __future__ import annotations

from boresight.app import Service, create_app
from scenes_index import ODD_IDS
from service_contract import check_contract


def test_no_request_makes_it_fail(service: Service) -> None:
    statuses = check_contract(create_app(service), ODD_IDS, examples=5, start=0)
    routes = {line.rpartition(" ")[0] for line in statuses}
    assert [route for route in sorted(routes) if f"{route} 200" not in statuses] == []
    assert len(routes) == 14
