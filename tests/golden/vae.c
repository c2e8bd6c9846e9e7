/* tests/golden/vae.c: AutoencoderKL. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * PREFIX.{pixels_u8,mean,logvar,latent,decoded_mean} for PREFIX vae.I and oblong.vae. */
#include "flux/vae/vae.h"

#include "tests/golden/parity.h"

static const double BOUND = 2e-5;

/* One tensor PREFIX.NAME against values already computed. */
static void
compare_part (Parity *p, const char *prefix, const char *name, const float *got, gsize n)
{
  g_autofree char *group = g_strdup_printf ("%s.%s", prefix, name);
  gsize n_want = 0;
  g_autofree float *want = parity_floats (p, &n_want, "%s", group);

  if (want == NULL)
    return;
  if (n_want != n)
    parity_skip (p, group, "it is of another size than the picture's");
  else
    parity_compare (p, group, got, want, n, BOUND);
}

static void
compare_decoded (Parity *p, FluxVae *vae, const char *prefix, int width, int height)
{
  const FluxVaeInfo *info = flux_vae_get_info (vae);
  g_autofree char *group = g_strdup_printf ("%s.decoded_mean", prefix);
  int w = width / info->downscale, h = height / info->downscale;
  gsize n = 3 * (gsize)width * (gsize)height, n_mean = 0;
  g_autofree float *mean = parity_floats (p, &n_mean, "%s.mean", prefix);
  g_autofree float *image = g_new (float, n);
  g_autoptr (GError) error = NULL;

  if (mean == NULL || parity_find (p, "%s", group) == NULL ||
      n_mean != (gsize)info->latent_channels * (gsize)w * (gsize)h)
    return;
  if (flux_vae_decode (vae, mean, w, h, image, &error))
    compare_part (p, prefix, "decoded_mean", image, n);
  else
    parity_fail (p, group, &error);
}

static void
compare_one (Parity *p, FluxVae *vae, const char *prefix)
{
  const FluxVaeInfo *info = flux_vae_get_info (vae);
  const FluxTensor *pixels = parity_find (p, "%s.pixels_u8", prefix);
  g_autofree char *prefix_dot = g_strconcat (prefix, ".", NULL);
  g_autofree float *moments = NULL;
  g_autoptr (GError) error = NULL;
  int width, height;
  gsize n;

  if (pixels == NULL || pixels->dtype != FX_U8 || pixels->n_dims != 3 ||
      pixels->dims[2] != 3 || pixels->dims[0] > 1 << 14 || pixels->dims[1] > 1 << 14) {
    parity_mark (p, prefix_dot);
    parity_skip (p, prefix, "there is no pixels_u8 of [height, width, 3]");
    return;
  }
  height = (int)pixels->dims[0];
  width = (int)pixels->dims[1];
  n = (gsize)info->latent_channels * (gsize)(width / info->downscale) *
      (gsize)(height / info->downscale);
  moments = g_new (float, 2 * n + 1);
  if (!flux_vae_encode (vae, pixels->data, width, height, 3 * width, moments, &error)) {
    parity_fail (p, prefix, &error);
    return;
  }
  compare_part (p, prefix, "mean", moments, n);
  compare_part (p, prefix, "logvar", moments + n, n);
  for (gsize i = 0; i < n; i++)
    moments[i] = (moments[i] - info->shift_factor) * info->scaling_factor;
  compare_part (p, prefix, "latent", moments, n);
  compare_decoded (p, vae, prefix, width, height);
}

void
parity_vae (Parity *p)
{
  g_auto (GStrv) indices = parity_indices (p, "vae.");
  g_auto (GStrv) oblong = parity_names (p, "oblong.vae.");
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxVae) vae = NULL;

  if (indices[0] == NULL && oblong[0] == NULL)
    return;
  vae = flux_vae_load (
      p->model_dir, p->backend, FLUX_VAE_ENCODER | FLUX_VAE_DECODER, NULL, NULL, &error);
  if (vae == NULL) {
    parity_mark (p, "vae.");
    parity_mark (p, "oblong.vae.");
    parity_fail (p, "vae", &error);
    return;
  }
  for (guint i = 0; indices[i] != NULL; i++) {
    g_autofree char *prefix = g_strdup_printf ("vae.%s", indices[i]);
    compare_one (p, vae, prefix);
  }
  if (oblong[0] != NULL)
    compare_one (p, vae, "oblong.vae");
}
