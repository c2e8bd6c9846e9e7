/* tests/hub/server-private.h: the parts of the tests' Hub. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include "tests/hub/server.h"

typedef struct {
  char *method, *path, *range, *authorization;
  GBytes *body; /* or NULL */
  gboolean is_cut;
} TestHubRequest;

void test_hub_answer (GOutputStream *out, const TestHubRequest *r, guint status,
    const char *headers, const char *body);

/* ---- push.c ---- */

/* TRUE: it was for it, and is answered. */
gboolean
test_hub_push (TestHub *self, GOutputStream *out, const TestHubRequest *r, guint16 port);
