/* flux/hub/push-private.h: what the parts of a push share. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 *   push.c         the order of things
 *   push-commit.c  the Hub's own requests: repository, modes, commit
 *   push-lfs.c     large files */
#pragma once

#include "flux/hub/hub-private.h"
#include "flux/hub/push.h"

G_BEGIN_DECLS

enum { FLUX_HUB_MAX_COMMIT = 64 << 20 /* bytes of the files in a commit itself */ };

typedef struct {
  const FluxHubUpload *upload;
  guint64 size;
  gboolean is_lfs;
  gboolean is_known; /* not to be sent: ignored, or the same is there */
  char *sha256;      /* of an LFS file */
  char *theirs;      /* the same of what the repository has there, or NULL */
} FluxHubItem;

typedef struct {
  FluxHub hub;
  const FluxHubPush *push;
  FluxHubSession *session;
  GPtrArray *items; /* FluxHubItem */
  char *page;       /* the result */
  GError *error;
} FluxHubPushing;

/* A request with a JSON body; the answer's text. */
GString *flux_hub_post (FluxHubPushing *self, const char *url, const char *type,
    const GString *body, const char *what, FluxHubRequest *request, GError **error);
/* Cannot be understood. */
gboolean flux_hub_push_refuse (FluxHubPushing *self, const char *fault, GError **error);
/* The whole content; NULL when it cannot be read. */
GBytes *flux_hub_item_read (const FluxHubItem *item, GError **error);

/* ---- push-commit.c ---- */

gboolean flux_hub_push_create (FluxHubPushing *self, GError **error);
/* Fills is_lfs and is_known. */
gboolean flux_hub_push_modes (FluxHubPushing *self, GError **error);
gboolean flux_hub_push_commit (FluxHubPushing *self, GError **error);

/* ---- push-lfs.c ---- */

gboolean flux_hub_push_large (FluxHubPushing *self, GError **error);

G_END_DECLS
