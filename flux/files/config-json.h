/* flux/files/config-json.h: small JSON objects from outside (config.json, quant_state).
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Bounded: at most 1 MiB of text, nested at most 64 deep. Errors name the file and the
 * key. A key whose value is null counts as absent. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct _FluxConfigJson FluxConfigJson;

FluxConfigJson *flux_config_json_read (const char *path, GError **error);
/* where: what errors call the text (a file, or a tensor of a file). */
FluxConfigJson *flux_config_json_parse (
    const char *text, gsize length, const char *where, GError **error);
void flux_config_json_free (FluxConfigJson *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxConfigJson, flux_config_json_free)

gboolean flux_config_json_has (FluxConfigJson *self, const char *key);
/* An absent key is an error, unless the caller asks only when flux_config_json_has(). */
gboolean flux_config_json_int (FluxConfigJson *self, const char *key, gint64 min,
    gint64 max, int *value, GError **error);
gboolean flux_config_json_number (FluxConfigJson *self, const char *key, double min,
    double max, double *value, GError **error);
gboolean flux_config_json_bool (
    FluxConfigJson *self, const char *key, gboolean *value, GError **error);
/* Owned by self. */
const char *
flux_config_json_string (FluxConfigJson *self, const char *key, GError **error);
/* *n: the room in values, then how many there were (at least one). */
gboolean flux_config_json_ints (FluxConfigJson *self, const char *key, gint64 min,
    gint64 max, gint64 *values, guint *n, GError **error);
/* The object under a key, to be freed before or after self. */
FluxConfigJson *
flux_config_json_child (FluxConfigJson *self, const char *key, GError **error);
/* Names of the members in their order, NULL-terminated; g_strfreev() it. */
char **flux_config_json_names (FluxConfigJson *self);

G_END_DECLS
