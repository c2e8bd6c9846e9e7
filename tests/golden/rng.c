/* tests/golden/rng.c: PyTorch's CPU generator. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * randn.S.N, rand.S.N, randperm.S.N, randn_bf16.S.N, randn_f16.S.N: N numbers after
 * torch.manual_seed (S). */
#include "tests/golden/parity.h"

#include <string.h>

/* "KIND.S.N" with the tensor's own length for N. */
static gboolean
parse (const char *name, const FluxTensor *t, guint64 *seed)
{
  g_auto (GStrv) parts = g_strsplit (name, ".", 4);
  guint64 n;

  return g_strv_length (parts) == 3 &&
         g_ascii_string_to_unsigned (parts[1], 10, 0, G_MAXUINT64, seed, NULL) &&
         g_ascii_string_to_unsigned (parts[2], 10, 1, 1 << 28, &n, NULL) &&
         n == t->n_elements;
}

static void
compare_normal (Parity *p, const char *name, fx_dtype dtype)
{
  const FluxTensor *t = parity_find (p, "%s", name);
  g_autofree void *got = NULL;
  fx_torch_rng rng;
  guint64 seed;

  if (!parse (name, t, &seed) || t->dtype != dtype) {
    parity_skip (p, name, "its name or type is not that of a draw");
    return;
  }
  got = g_malloc (t->n_bytes);
  fx_torch_seed (&rng, seed);
  fx_torch_randn (&rng, got, dtype, t->n_elements);
  parity_equal (p, name, got, t->data, t->n_bytes);
}

static void
compare_uniform (Parity *p, const char *name)
{
  const FluxTensor *t = parity_find (p, "%s", name);
  g_autofree float *got = NULL;
  fx_torch_rng rng;
  guint64 seed;

  if (!parse (name, t, &seed) || t->dtype != FX_F32) {
    parity_skip (p, name, "its name or type is not that of a draw");
    return;
  }
  got = g_new (float, t->n_elements);
  fx_torch_seed (&rng, seed);
  fx_torch_rand (&rng, got, t->n_elements);
  parity_equal (p, name, got, t->data, t->n_bytes);
}

static void
compare_permutation (Parity *p, const char *name)
{
  const FluxTensor *t = parity_find (p, "%s", name);
  g_autofree gint32 *got = NULL;
  fx_torch_rng rng;
  guint64 seed;

  if (!parse (name, t, &seed) || t->dtype != FX_I32) {
    parity_skip (p, name, "its name or type is not that of a draw");
    return;
  }
  got = g_new (gint32, t->n_elements);
  fx_torch_seed (&rng, seed);
  fx_torch_randperm (&rng, got, t->n_elements);
  parity_equal (p, name, got, t->data, t->n_bytes);
}

void
parity_rng (Parity *p)
{
  static const struct {
    const char *prefix;
    fx_dtype dtype;
  } normals[] = {{"randn.", FX_F32}, {"randn_bf16.", FX_BF16}, {"randn_f16.", FX_F16}};
  g_auto (GStrv) uniforms = parity_names (p, "rand.");
  g_auto (GStrv) permutations = parity_names (p, "randperm.");

  for (guint k = 0; k < G_N_ELEMENTS (normals); k++) {
    g_auto (GStrv) names = parity_names (p, normals[k].prefix);
    for (guint i = 0; names[i] != NULL; i++)
      compare_normal (p, names[i], normals[k].dtype);
  }
  for (guint i = 0; uniforms[i] != NULL; i++)
    compare_uniform (p, uniforms[i]);
  for (guint i = 0; permutations[i] != NULL; i++)
    compare_permutation (p, permutations[i]);
}
