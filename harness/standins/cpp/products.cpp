// A stand-in for cuBLAS, for tests: the products that candle asks for, in f32 with sums in f64.
#include <cstdio>
#include <cstdlib>
#include <vector>
#define API extern "C" __attribute__((visibility("default"))) int
enum { SUCCESS = 0, NOT_SUPPORTED = 15, F32 = 0 };
API cublasCreate_v2(void **h) { return *h = (void *)16, SUCCESS; }
API cublasDestroy_v2(void *) { return SUCCESS; }
API cublasSetStream_v2(void *, void *) { return SUCCESS; }
API cublasSetWorkspace_v2(void *, void *, size_t) { return SUCCESS; }
API cublasSetMathMode(void *, int) { return SUCCESS; }

// C = α A B + β C, all by columns; A and B transposed on request
static void product(bool at, bool bt, int m, int n, int k, float alpha, const float *A, int lda, const float *B, int ldb, float beta,
                    float *C, int ldc) {
  std::vector<double> column(m);
  for (int j = 0; j < n; ++j) {
    for (double &c : column) c = 0;
    for (int p = 0; p < k; ++p) {
      double b = bt ? B[size_t(p) * ldb + j] : B[size_t(j) * ldb + p];
      for (int i = 0; i < m; ++i) column[i] += b * (at ? A[size_t(i) * lda + p] : A[size_t(p) * lda + i]);
    }
    for (int i = 0; i < m; ++i) {
      float &c = C[size_t(j) * ldc + i];
      c = float(alpha * column[i] + (beta != 0 ? beta * c : 0));
    }
  }
}
API cublasSgemm_v2(void *, int ta, int tb, int m, int n, int k, const float *alpha, const float *A, int lda, const float *B, int ldb,
                   const float *beta, float *C, int ldc) {
  return product(ta, tb, m, n, k, *alpha, A, lda, B, ldb, *beta, C, ldc), SUCCESS;
}
API cublasSgemmStridedBatched(void *, int ta, int tb, int m, int n, int k, const float *alpha, const float *A, int lda, long long sa,
                              const float *B, int ldb, long long sb, const float *beta, float *C, int ldc, long long sc, int batch) {
  for (int i = 0; i < batch; ++i) product(ta, tb, m, n, k, *alpha, A + i * sa, lda, B + i * sb, ldb, *beta, C + i * sc, ldc);
  return SUCCESS;
}
API cublasGemmStridedBatchedEx(void *, int ta, int tb, int m, int n, int k, const void *alpha, const void *A, int type_a, int lda,
                               long long sa, const void *B, int type_b, int ldb, long long sb, const void *beta, void *C, int type_c,
                               int ldc, long long sc, int batch, int, int) {
  if (type_a != F32 || type_b != F32 || type_c != F32) {
    fprintf(stderr, "stand-in cuBLAS: products of f32 only\n");
    return NOT_SUPPORTED;
  }
  for (int i = 0; i < batch; ++i)
    product(ta, tb, m, n, k, *(const float *)alpha, (const float *)A + i * sa, lda, (const float *)B + i * sb, ldb,
            *(const float *)beta, (float *)C + i * sc, ldc);
  return SUCCESS;
}
API cublasDgemmStridedBatched() {
  fprintf(stderr, "stand-in cuBLAS: no cublasDgemmStridedBatched\n");
  abort();
}
