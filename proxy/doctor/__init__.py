"""What an engineer runs at 3 a.m.: every step of every route, and what to type where one fails.

`command.main` is `doctor`, `token.main` is `token`.  Tokens are never shown but by the latter.

The report as JSON (``--format json``) is one object, whose keys are stable:

- ``version``: the program's; ``ok``: whether all routes work;
- ``routes``: a list in the order asked for, each with
  - ``name``; ``upstream``, null where a service's URL is not known; ``auth``; ``audience``,
    ``scopes``, ``header`` and ``credentials``, null where no such token is sent;
  - ``ok``: whether no step has failed;
  - ``steps``: a list in the order in which they depend on each other, each with
    - ``step``: ``configuration`` (warnings only), ``service``, ``credentials``, ``account``,
      ``token``, ``dns``, ``tcp``, ``egress_proxy``, ``tls``, ``request`` or ``clock``;
      a step that does not concern the route is left out;
    - ``outcome``: ``ok``, ``warning``, ``failed`` or ``skipped``;
    - ``text`` and ``notes``: what people read;
    - ``reason``: the stable name of what is wrong, one of `findings.Reason`; ``why``, ``fix``,
      ``command``: sentences, and a line for a shell.  Null where nothing is wrong or there is
      nothing to type;
    - ``facts``: an object, for each step that was taken:
      ``service``: ``upstream``;
      ``credentials``: ``source`` (``metadata``, ``file``, ``token_file``), ``host`` or ``file``
      and ``kind`` (its ``type``), ``impersonates``;
      ``account``: ``email``;
      ``token``: ``aud``, ``email``, ``issued_at`` and ``expires_at`` (Unix seconds),
      ``expires_in`` (seconds); of an access token ``scopes`` (null where they are a login's own)
      and ``quota_project`` in place of ``aud`` and ``issued_at``;
      ``dns``: ``addresses``, ``seconds``;
      ``tcp``: ``address``, ``port``, ``seconds``;
      ``egress_proxy``: ``proxy``, ``to`` (what the tunnel leads to), ``seconds``;
      ``tls``: ``version``, ``alpn``, ``verified``, ``subject``, ``issuer``, ``names``,
      ``not_before``, ``not_after`` (ISO 8601);
      ``request``: ``method``, ``path``, ``status``, ``seconds``, ``server``, ``answered_by``
      (``service``, ``google``, ``iap``);
      ``clock``: ``skew_seconds``, by which the other side's clock is ahead.
"""
