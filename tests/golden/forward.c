/* tests/golden/forward.c: one forward of the transformer, and packing.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fwd.I.{hidden_states,out,out_nf4} at metadata fwd.I {t, guidance, text}, fwd.img_ids;
 * oblong.fwd.* likewise at metadata oblong, with oblong.noise and oblong.unpacked. */
#include "flux/error.h"
#include "tests/golden/parity.h"

#include <string.h>

static const double BOUND = 2e-5;

/* Everything one forward needs. */
typedef struct {
  float *latents, *prompt_embeds, *pooled;
  FluxInput in;
} Case;

static void
case_clear (Case *c)
{
  g_free (c->latents);
  g_free (c->prompt_embeds);
  g_free (c->pooled);
}

/* Height and width in tokens out of position ids (0, y, x), row by row. */
static gboolean
read_grid (Parity *p, const char *name, int *height, int *width)
{
  gsize n = 0, tokens;
  g_autofree float *ids = parity_floats (p, &n, "%s", name);

  if (ids == NULL || n < 3 || n % 3 != 0)
    return FALSE;
  tokens = n / 3;
  *height = (int)ids[n - 2] + 1;
  *width = (int)ids[n - 1] + 1;
  if ((gsize)*height * (gsize)*width != tokens)
    return FALSE;
  for (gsize i = 0; i < tokens; i++) {
    if (ids[3 * i] != 0 || ids[3 * i + 1] != (float)((int)i / *width) ||
        ids[3 * i + 2] != (float)((int)i % *width))
      return FALSE;
  }
  return TRUE;
}

/* FALSE with a reason when the golden data do not hold the case or it is another
 * model's. */
static gboolean
case_read (Parity *p, const FluxConfig *c, JsonObject *settings, const char *latents,
    const char *ids, Case *out, const char **reason)
{
  gint64 text = (gint64)parity_number (settings, "text", 0);
  gsize n_latents = 0, n_prompt = 0, n_pooled = 0;

  *reason = "its inputs are absent";
  out->latents = parity_floats (p, &n_latents, "%s", latents);
  out->prompt_embeds =
      parity_floats (p, &n_prompt, "text.%" G_GINT64_FORMAT ".prompt_embeds", text);
  out->pooled = parity_floats (p, &n_pooled, "text.%" G_GINT64_FORMAT ".pooled", text);
  if (out->latents == NULL || out->prompt_embeds == NULL || out->pooled == NULL)
    return FALSE;
  *reason = "its position ids are not those of a picture, row by row";
  if (!read_grid (p, ids, &out->in.grid_height, &out->in.grid_width))
    return FALSE;
  *reason = "its inputs are of another model";
  if (n_latents != (gsize)out->in.grid_height * (gsize)out->in.grid_width *
                       (gsize)c->in_channels ||
      n_pooled != (gsize)c->pooled_projection_dim ||
      n_prompt % (gsize)c->joint_attention_dim != 0)
    return FALSE;
  out->in.latents = out->latents;
  out->in.prompt_embeds = out->prompt_embeds;
  out->in.pooled = out->pooled;
  out->in.text_tokens = (int)(n_prompt / (gsize)c->joint_attention_dim);
  out->in.timestep = (float)parity_number (settings, "t", 0);
  out->in.guidance = (float)parity_number (settings, "guidance", 1);
  return TRUE;
}

/* One forward on one base against the tensor `name`; the line is called `group`. */
static void
compare_out (
    Parity *p, FluxTransformer *base, const Case *c, const char *name, const char *group)
{
  gsize n = 0;
  g_autofree float *want = parity_floats (p, &n, "%s", name);
  g_autofree float *got = NULL;
  g_autoptr (FluxRun) run = NULL;
  g_autoptr (GError) error = NULL;
  int tokens = c->in.grid_height * c->in.grid_width;

  if (want == NULL)
    return;
  if (n != (gsize)tokens * (gsize)flux_transformer_get_config (base)->out_channels) {
    parity_skip (p, group, "it is of another model");
    return;
  }
  got = g_new (float, n);
  run = flux_run_new (
      base, FLUX_RUN_FORWARD, c->in.text_tokens, tokens, 1, NULL, 0, &error);
  if (run == NULL || !flux_run_forward (run, &c->in, got, &error))
    parity_fail (p, group, &error);
  else
    parity_compare (p, group, got, want, n, BOUND);
}

/* PREFIX.out, PREFIX.out_nf4 on the bases they belong to. */
static void
compare_case (Parity *p, const char *prefix, const char *settings_name, const char *ids)
{
  static const struct {
    const char *tensor, *line;
    ParityBase base;
  } outs[] = {{"out", "out", PARITY_BASE_FLOAT},
      {"out_nf4", "out_nf4 (quantised on load)", PARITY_BASE_QUANTISED},
      {"out_nf4", "out_nf4 (transformer-nf4)", PARITY_BASE_STORED}};
  g_autofree char *latents = g_strdup_printf ("%s.hidden_states", prefix);
  g_autoptr (JsonObject) settings = parity_settings (p, "%s", settings_name);

  /* Inputs, even where the base is absent. */
  parity_find (p, "%s", latents);
  parity_find (p, "%s", ids);
  for (guint i = 0; i < G_N_ELEMENTS (outs); i++) {
    g_autofree char *name = g_strdup_printf ("%s.%s", prefix, outs[i].tensor);
    g_autofree char *group = g_strdup_printf ("%s.%s", prefix, outs[i].line);
    g_autoptr (GError) error = NULL;
    const char *reason = "the metadata do not describe it";
    FluxTransformer *base;
    Case c = {0};
    if (parity_find (p, "%s", name) == NULL)
      continue;
    base = parity_base (p, outs[i].base, &error);
    if (base == NULL)
      parity_fail (p, group, &error);
    else if (settings == NULL || !case_read (p, flux_transformer_get_config (base),
                                     settings, latents, ids, &c, &reason))
      parity_skip (p, group, reason);
    else
      compare_out (p, base, &c, name, group);
    case_clear (&c);
  }
}

/* ---- packing ---- */

/* hidden_states = pack ((1 - t) latent + t noise); unpacked = unpack (hidden_states). */
static void
compare_packing (Parity *p)
{
  const FluxTensor *shape = parity_find (p, "oblong.noise");
  gsize n = 0, n_latent = 0, n_packed = 0, n_unpacked = 0;
  g_autofree float *noise = parity_floats (p, &n, "oblong.noise");
  g_autofree float *latent = parity_floats (p, &n_latent, "oblong.vae.latent");
  g_autofree float *packed = parity_floats (p, &n_packed, "oblong.fwd.hidden_states");
  g_autofree float *unpacked = parity_floats (p, &n_unpacked, "oblong.unpacked");
  g_autoptr (JsonObject) settings = parity_settings (p, "oblong");
  g_autofree float *mixed = NULL, *got = NULL;
  float t;

  if (noise == NULL || latent == NULL || packed == NULL || unpacked == NULL ||
      settings == NULL || shape->n_dims != 4 || n_latent != n || n_packed != n ||
      n_unpacked != n || shape->dims[2] % 2 != 0 || shape->dims[3] % 2 != 0) {
    parity_skip (p, "oblong packing", "its tensors are absent or of different sizes");
    return;
  }
  t = (float)parity_number (settings, "t", 0);
  mixed = g_new (float, n);
  got = g_new (float, n);
  for (gsize i = 0; i < n; i++)
    mixed[i] = (1.0f - t) * latent[i] + t * noise[i];
  flux_pack_latents (
      mixed, (int)shape->dims[1], (int)shape->dims[2], (int)shape->dims[3], got);
  parity_compare (p, "oblong.fwd.hidden_states", got, packed, n, 1e-6);
  flux_unpack_latents (
      packed, (int)shape->dims[1], (int)shape->dims[2], (int)shape->dims[3], got);
  parity_equal (p, "oblong.unpacked", got, unpacked, n * sizeof (float));
}

void
parity_forward (Parity *p)
{
  g_auto (GStrv) indices = parity_indices (p, "fwd.");
  g_auto (GStrv) oblong = parity_names (p, "oblong.fwd.");
  g_auto (GStrv) bf16 = parity_names (p, "bf16.");

  for (guint i = 0; indices[i] != NULL; i++) {
    g_autofree char *prefix = g_strdup_printf ("fwd.%s", indices[i]);
    if (strcmp (indices[i], "img_ids") != 0)
      compare_case (p, prefix, prefix, "fwd.img_ids");
  }
  if (oblong[0] != NULL) {
    compare_case (p, "oblong.fwd", "oblong", "oblong.fwd.img_ids");
    compare_packing (p);
  }
  if (bf16[0] != NULL && p->compute == FX_F32) {
    parity_mark (p, "bf16.");
    parity_skip (p, "bf16", "a yardstick for --compute=bfloat16");
  }
}
