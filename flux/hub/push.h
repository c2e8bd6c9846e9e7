/* flux/hub/push.h: files into a model repository of the Hugging Face Hub.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * As huggingface_hub's create_repo() and create_commit() do it (hf_api.py,
 * _commit_api.py, lfs.py): the repository is made when it is not there; the Hub says of
 * each file whether it goes through LFS (in one piece or in parts) or into the commit
 * itself; one commit takes all of them, so that nobody sees half of it. Content that the
 * Hub has is not sent again. What the repository has besides stays.
 *
 * Environment and token as in flux/hub/hub.h. A repository that is to be private and is
 * public is refused before anything is sent. */
#pragma once

#include "flux/hub/hub.h"

G_BEGIN_DECLS

typedef struct {
  char *path;    /* in the repository */
  char *file;    /* on disk, or */
  GBytes *bytes; /* its content */
} FluxHubUpload;

void flux_hub_upload_free (FluxHubUpload *self);
/* A file of the disk to the uploads; both names are copied. */
void flux_hub_upload_add (GPtrArray *uploads, const char *path, const char *file);

typedef struct {
  const char *repo;    /* "user/name" */
  gboolean is_private; /* when it has to be made; otherwise it must be so */
  const char *message; /* of the commit */
  GPtrArray *files;    /* FluxHubUpload; borrowed */
} FluxHubPush;

/* What can be known before there is anything to send, without the network: the name, the
 * token, whether this build can. */
gboolean flux_hub_check_push (const char *repo, GError **error);
/* Whether the Hub knows the token; asks it. */
gboolean flux_hub_check_token (
    const char *repo, FluxProgressFunc progress, gpointer data, GError **error);

/* The address of the repository's page. Blocks; progress as in flux_hub_resolve(). Errors
 * are sentences; nothing is in the repository then. */
char *flux_hub_push (
    const FluxHubPush *push, FluxProgressFunc progress, gpointer data, GError **error);

G_END_DECLS
